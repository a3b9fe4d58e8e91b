//! Doing what has to be done outside, once more where a flow could not.

use super::{Error, Flows};

/// Does what is due; answers how many effects that were.
pub async fn run_due(_flows: &Flows) -> Result<usize, Error> {
    todo!()
}

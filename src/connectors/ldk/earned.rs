//! What is earned by forwarding: told once for each hour, not once for each payment that a stranger sends through.

use std::collections::BTreeMap;

use super::events::amount;
use super::node::Node;
use super::types::lock;
use crate::clock::Timestamp;
use crate::domain::movement::Movement;
use crate::store::node::{Hour, Step};

const HOUR_MILLIS: i64 = 60 * 60 * 1_000;
const KEPT_HOURS: i64 = 24;

/// By the hour since 1970: what was earned in it, and what of that is told. In millisatoshi.
#[derive(Debug, Default)]
pub(super) struct Earned {
    hours: BTreeMap<i64, (u64, u64)>,
}

impl Earned {
    pub fn of(hours: Vec<Hour>) -> Self {
        Self { hours: hours.into_iter().map(|Hour { hour, fee, told }| (hour, (fee, told))).collect() }
    }

    /// What the node has earned and not told.
    pub fn untold(&self) -> u64 {
        self.hours.values().map(|(fee, told)| fee.saturating_sub(*told)).fold(0, u64::saturating_add)
    }

    pub fn add(&mut self, at: Timestamp, msat: u64) -> Step {
        let hour = at.millis().div_euclid(HOUR_MILLIS);
        let (fee, told) = self.hours.entry(hour).or_default();
        *fee = fee.saturating_add(msat);
        Step::Earned(Hour { hour, fee: *fee, told: *told })
    }

    /// What is to be told of hours that are over at this time.
    fn tell(&mut self, now: Timestamp) -> Vec<Step> {
        let current = now.millis().div_euclid(HOUR_MILLIS);
        let mut steps = Vec::new();
        for (hour, (fee, told)) in self.hours.iter_mut().filter(|(hour, (fee, told))| **hour < current && told < fee) {
            let earned = amount(fee.saturating_sub(*told));
            steps.push(Step::Movement(Movement::Forwarded { name: format!("hour:{hour}:{told}"), fee: earned }));
            *told = *fee;
            steps.push(Step::Earned(Hour { hour: *hour, fee: *fee, told: *told }));
        }
        // A clock that goes back by less than a day finds its hour again, and what was told of it.
        self.hours.retain(|hour, _| *hour > current.saturating_sub(KEPT_HOURS));
        steps
    }
}

impl Node {
    /// Tells what was earned in hours that are over.
    pub fn tell_earned(&self) {
        let steps = lock(&self.books.inner).earned.tell(self.store.clock().now());
        steps.into_iter().for_each(|step| self.stage.push(step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(hour: i64) -> Timestamp {
        Timestamp::from_millis(hour * HOUR_MILLIS + 5)
    }

    #[test]
    fn an_hour_of_forwards_is_one_movement() {
        let mut earned = Earned::default();
        for _ in 0..1_000 {
            earned.add(at(7), 3);
        }
        assert_eq!(earned.untold(), 3_000);
        assert_eq!(earned.tell(at(7)), [], "it is not over");
        let steps = earned.tell(at(8));
        let told = Movement::Forwarded { name: "hour:7:0".to_owned(), fee: amount(3_000) };
        assert_eq!(steps, [Step::Movement(told), Step::Earned(Hour { hour: 7, fee: 3_000, told: 3_000 })]);
        assert_eq!((earned.untold(), earned.tell(at(9)).len()), (0, 0), "once");
    }

    #[test]
    fn a_clock_that_goes_back_tells_the_rest_under_another_name() {
        let mut earned = Earned::of(vec![Hour { hour: 7, fee: 3_000, told: 3_000 }]);
        assert_eq!(earned.add(at(7), 5), Step::Earned(Hour { hour: 7, fee: 3_005, told: 3_000 }));
        let told = Movement::Forwarded { name: "hour:7:3000".to_owned(), fee: amount(5) };
        assert_eq!(earned.tell(at(8))[0], Step::Movement(told));
    }
}

//! What can be answered instead of a result. The codes above -1000 are those of the protocol, as every proxy answers them; those
//! from -32700 to -32600 are those of JSON-RPC; the few between are this gateway's own.

use std::borrow::Cow;

use crate::flows::{Code, Error};
use crate::http::problem::{Problem, entry};

/// An error of the dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: i32,
    pub message: Cow<'static, str>,
    /// Seconds after which the same call may succeed.
    pub retry_after: Option<u32>,
}

const fn fault(code: i32, message: &'static str) -> Fault {
    Fault { code, message: Cow::Borrowed(message), retry_after: None }
}

pub const CANNOT_CHANGE_ACK: Fault = fault(-100, "Cannot change ACK");
/// The same code: for whoever asks it is as if the word had been spoken.
pub const NOT_THEIR_ACK: Fault =
    fault(-100, "Cannot change ACK: this recipient is an invoice of this gateway, which alone acknowledges for it");
pub const CANNOT_CHANGE_FILE: Fault = fault(-101, "Cannot change uploaded file");
pub const INVALID_ACK: Fault = fault(-200, "Invalid ACK");
pub const INVALID_ATTACHMENT_ID: Fault = fault(-201, "Invalid attachment ID");
pub const INVALID_RECIPIENT_ID: Fault = fault(-202, "Invalid recipient ID");
pub const INVALID_TXID: Fault = fault(-203, "Invalid TXID");
pub const INVALID_VOUT: Fault = fault(-204, "Invalid vout");
pub const MISSING_ACK: Fault = fault(-300, "Missing ACK");
pub const MISSING_ATTACHMENT_ID: Fault = fault(-301, "Missing attachment ID");
pub const MISSING_RECIPIENT_ID: Fault = fault(-302, "Missing recipient ID");
/// One code for two things that are missing: the message tells them apart.
pub const MISSING_FILE: Fault = fault(-303, "Missing file");
pub const MISSING_TXID: Fault = fault(-303, "Missing TXID");
pub const NO_CONSIGNMENT: Fault = fault(-400, "Consignment file not found");
pub const NO_MEDIA: Fault = fault(-401, "Media file not found");

pub const NOT_JSON: Fault = fault(-32_700, "Parse error: this is not JSON, and no form that can be read");
pub const NO_PARAMS_JSON: Fault = fault(-32_700, "Parse error: params is not JSON");
pub const LATE: Fault = fault(-32_700, "Parse error: the body did not arrive in time");
pub const NO_REQUEST: Fault =
    fault(-32_600, "Invalid request: one object with jsonrpc \"2.0\" and a method is asked for");
pub const BAD_ID: Fault =
    fault(-32_600, "Invalid request: an id is null, a whole number, or text of at most 255 characters");
pub const TWICE: Fault = fault(-32_600, "Invalid request: a field of the form was sent twice");
pub const NO_SUCH_METHOD: Fault = fault(-32_601, "Method not found");
pub const BAD_PARAMS: Fault = fault(-32_602, "Invalid params: they must be an object");

pub const TOO_LARGE: i32 = -32_000;
pub const FULL: Fault = fault(-32_001, "No more can be stored here until what is old is forgotten");
pub const TOO_MANY_CALLS: i32 = -32_002;
/// How long until a place is likely to be free again.
const BUSY_FOR: u32 = 5;
pub const BUSY: Fault = Fault {
    code: -32_003,
    message: Cow::Borrowed("Too much is being brought or fetched just now, by all or from this address; try again"),
    retry_after: Some(BUSY_FOR),
};
/// The invoice was paid, or will not be.
pub const CLOSED: Fault = fault(-32_005, "This invoice takes no consignment any more");
/// A page of somebody else made its reader's browser call.
pub const FROM_A_PAGE: Fault = fault(-32_004, "Calls from web pages are not taken here");
const INTERNAL: i32 = -32_603;

/// What was brought is longer than so many bytes.
pub fn too_large(what: &str, most: u64) -> Fault {
    let message = Cow::Owned(format!("Too large: {what} has at most {most} bytes here"));
    Fault { code: TOO_LARGE, message, retry_after: None }
}

/// The limits speak of problems.
pub fn too_many_calls(problem: Problem) -> Fault {
    Fault { code: TOO_MANY_CALLS, message: problem.detail, retry_after: problem.retry_after }
}

/// What went wrong inside is for the log.
impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let code = error.code();
        let problem = Problem::from(error);
        let message = match code {
            Code::StoreUnavailable => problem.detail,
            _ => Cow::Borrowed("Internal error"),
        };
        Self { code: INTERNAL, message, retry_after: entry(code).retry_after }
    }
}

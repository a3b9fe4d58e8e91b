//! What a handler's signature says of its operation in the document.
//!
//! An extractor describes what it takes: headers, the scope of a key, a body that may be left out, and how it refuses. So an endpoint is
//! its file, with the handler and one constant of the codes that only it answers, and its line in the router's list. No table is keyed by
//! its name.

use utoipa::openapi::path::{Operation, Parameter, Paths};
use utoipa::openapi::{RefOr, Required};
use utoipa_axum::router::UtoipaMethodRouter;

use super::openapi;
use super::problem::entry;
use crate::flows::Code;
use crate::flows::keys::Scope;

/// What is known of an operation from its signature.
#[derive(Default)]
pub struct About {
    pub headers: Vec<Parameter>,
    /// What a key has to have.
    pub scope: Option<Scope>,
    /// The wallet headers alone may be believed.
    pub believes_wallet_headers: bool,
    pub body_may_be_left_out: bool,
    pub takes_idempotency_key: bool,
    pub codes: Vec<Code>,
}

impl About {
    pub fn may_answer(&mut self, codes: &[Code]) {
        for code in codes {
            if !self.codes.contains(code) {
                self.codes.push(*code);
            }
        }
    }
}

/// A part of a signature that says what it takes.
pub trait Documented {
    fn describe(about: &mut About);
}

/// A handler, by the types of its parameters.
pub trait Signature<Parts> {
    fn about(&self) -> About;
}

macro_rules! signatures {
    ($($part:ident),*) => {
        impl<F, Answer, $($part: Documented),*> Signature<($($part,)*)> for F
        where
            F: Fn($($part),*) -> Answer,
        {
            fn about(&self) -> About {
                let mut about = About::default();
                $($part::describe(&mut about);)*
                about
            }
        }
    };
}

signatures!(A);
signatures!(A, B);
signatures!(A, B, C);
signatures!(A, B, C, D);
signatures!(A, B, C, D, E);

/// Routes a handler, and completes its part of the document from its signature and its codes.
macro_rules! endpoint {
    ($($part:ident)::+, $codes:expr) => {
        $crate::http::endpoint::documented(utoipa_axum::routes!($($part)::+), &$($part)::+, $codes)
    };
}
pub(super) use endpoint;

pub fn documented<S, P>(
    (schemas, mut paths, router): UtoipaMethodRouter<S>,
    handler: &impl Signature<P>,
    codes: &[Code],
) -> UtoipaMethodRouter<S> {
    for operation in operations(&mut paths) {
        let mut about = handler.about();
        about.may_answer(codes);
        complete(operation, about);
    }
    (schemas, paths, router)
}

fn operations(paths: &mut Paths) -> impl Iterator<Item = &mut Operation> {
    paths.paths.values_mut().flat_map(|item| [&mut item.get, &mut item.post].into_iter().filter_map(Option::as_mut))
}

/// Whether an operation was completed here, and no table has anything to add.
#[must_use]
pub fn is_complete(operation: &Operation) -> bool {
    operation.security.is_some()
}

fn complete(operation: &mut Operation, about: About) {
    let id = operation.operation_id.clone().unwrap_or_default();
    let parameters = operation.parameters.get_or_insert_default();
    parameters.extend(about.headers.into_iter().map(RefOr::T));
    if about.takes_idempotency_key {
        parameters.push(openapi::idempotency_header(&id).into());
    }
    if about.body_may_be_left_out
        && let Some(RefOr::T(body)) = &mut operation.request_body
    {
        body.required = Some(Required::False);
    }
    operation.security = Some(openapi::security(about.scope.is_some(), about.believes_wallet_headers));
    if let Some(scope) = about.scope {
        let said = operation.description.take().unwrap_or_default();
        operation.description = Some(format!("{said}\n\nThe key needs the scope `{scope}`."));
    }
    let mut codes = about.codes;
    codes.sort_by_key(|code| entry(*code).status);
    openapi::add_problems(operation, &codes);
}

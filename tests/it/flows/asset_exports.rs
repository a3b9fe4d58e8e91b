//! Exports of what the engine for assets knows, on a clock that is moved by hand.

use std::sync::Arc;

use sluice::assets::fake::{FakeEngine, World};
use sluice::flows::assets::export;
use sluice::flows::{Code, Error};
use sluice::secret::Secret;

use crate::harness::assets::side;
use crate::harness::rig::{Client, Rig, on_both};

fn with_engine(rig: &Rig) {
    rig.flows.use_assets(side(FakeEngine::new(World::new(rig.clock.clone()), Arc::clone(&rig.chain) as _)));
}

fn code<T: std::fmt::Debug>(done: Result<T, Error>) -> Code {
    done.expect_err("it is refused").code()
}

on_both!(a_signature_that_comes_too_late_exports_nothing, async |rig: Rig| {
    let (owner, password) = (Client::number(1), Secret::new("a password of a test"));
    rig.register(&owner).await;
    assert_eq!(code(export::begin(&rig.flows, &owner.keys, None, None).await), Code::AssetsUnavailable);
    with_engine(&rig);
    let begun = export::begin(&rig.flows, &owner.keys, Some(60), None).await.expect("it begins");
    let signed = owner.export(&begun.psbt);
    rig.wait(60).await;
    assert_eq!(code(export::end(&rig.flows, &owner.keys, &signed, &password).await), Code::RequestExpired);
    // With the next one it is forgotten.
    export::begin(&rig.flows, &owner.keys, None, None).await.expect("it begins");
    assert_eq!(code(export::end(&rig.flows, &owner.keys, &signed, &password).await), Code::PsbtUnknown);
    rig.audit().await;
});

on_both!(of_two_calls_at_once_with_one_signature_one_exports, async |rig: Rig| {
    let (owner, password) = (Client::number(1), Secret::new("a password of a test"));
    rig.register(&owner).await;
    with_engine(&rig);
    let begun = export::begin(&rig.flows, &owner.keys, None, None).await.expect("it begins");
    let signed = owner.export(&begun.psbt);
    let call = || export::end(&rig.flows, &owner.keys, &signed, &password);
    let (one, other) = tokio::join!(call(), call());
    let (done, refused) = if one.is_ok() { (one, other) } else { (other, one) };
    assert!(!done.expect("one of them exports").is_empty());
    assert_eq!(code(refused), Code::RequestExpired);
    rig.audit().await;
});

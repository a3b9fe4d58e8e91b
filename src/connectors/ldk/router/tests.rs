//! Ways as LDK's own search finds them, and who may take them.

use std::sync::RwLock;

use bitcoin::Network;
use lightning::routing::gossip::NetworkGraph;
use lightning::routing::router::{DefaultRouter, Path, PaymentParameters, RouteHop};
use lightning::routing::scoring::{
    ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters,
};
use lightning::sign::{KeysManager, NodeSigner as _, Recipient};
use lightning::types::features::{ChannelFeatures, NodeFeatures};

use super::*;
use crate::connectors::ldk::logger::NodeLog;
use crate::domain::lightning::{Destination, PaymentHash, Preimage};
use crate::money::Amount;

const MSAT: u64 = 10_000_000;
const FEE: u64 = 3_000;

fn msat(msat: u64) -> Amount {
    Amount::from_msat(msat).unwrap()
}

struct Scene {
    router: Router,
    stage: Arc<Stage>,
    payer: PublicKey,
    params: RouteParameters,
}

fn scene() -> Scene {
    let log = Arc::new(NodeLog);
    let keys = Arc::new(KeysManager::new(&[7; 32], 0, 0, true));
    let payer = keys.get_node_id(Recipient::Node).unwrap();
    let graph = Arc::new(NetworkGraph::new(Network::Regtest, Arc::clone(&log)));
    let decay = ProbabilisticScoringDecayParameters::default();
    let scorer = ProbabilisticScorer::new(decay, Arc::clone(&graph), Arc::clone(&log));
    let fees = ProbabilisticScoringFeeParameters::default();
    let search = DefaultRouter::new(graph, log, keys, Arc::new(RwLock::new(scorer)), fees);
    let stage = Arc::new(Stage::default());
    let payee = PaymentParameters::for_keysend(payer, 40, false);
    let mut params = RouteParameters::from_payment_params_and_value(payee, MSAT);
    params.max_total_routing_fee_msat = Some(FEE);
    Scene { router: Router::new(search, Arc::clone(&stage), Vec::new()), stage, payer, params }
}

fn payment() -> Payment {
    let preimage = Preimage([2; 32]);
    Payment {
        id: PaymentId([1; 32]),
        hash: preimage.hash(),
        destination: Destination::Bolt11(String::new()),
        amount: msat(MSAT),
        max_fee: msat(FEE),
    }
}

impl Scene {
    /// A way in so many parts that gives its payee so much.
    fn way(&self, parts: u64, given: u64, fee: u64) -> Route {
        let hop = |fee_msat| RouteHop {
            pubkey: self.payer,
            node_features: NodeFeatures::empty(),
            short_channel_id: 1,
            channel_features: ChannelFeatures::empty(),
            fee_msat,
            cltv_expiry_delta: 40,
            maybe_announced_channel: true,
        };
        let path = || Path { hops: vec![hop(fee / parts), hop(given / parts)], blinded_tail: None };
        Route { paths: (0..parts).map(|_| path()).collect(), route_params: Some(self.params.clone()) }
    }

    fn asks(&self, id: PaymentId, hash: PaymentHash) -> Result<Route, &'static str> {
        let (id, hash) = (LdkPaymentId(id.0), LdkHash(hash.0));
        self.router.find_route_with_id(&self.payer, &self.params, None, InFlightHtlcs::new(), hash, id)
    }

    fn pays(&self, way: Route) -> Result<Route, &'static str> {
        let payment = payment();
        self.router.want(&payment, Some(way));
        self.asks(payment.id, payment.hash)
    }
}

#[test]
fn what_is_in_no_row_has_no_way() {
    let scene = scene();
    let refused = Err("this is no payment of ours");
    assert_eq!(scene.asks(PaymentId([1; 32]), payment().hash), refused);
    scene.router.want(&payment(), Some(scene.way(1, MSAT, 0)));
    assert_eq!(scene.asks(PaymentId([9; 32]), payment().hash), refused, "another payment");
    assert_eq!(scene.asks(payment().id, PaymentHash([9; 32])), refused, "another hash");
    assert!(scene.asks(payment().id, payment().hash).is_ok());
    scene.router.forget(payment().id);
    assert_eq!(scene.asks(payment().id, payment().hash), refused, "it is over");
    let probe = scene.router.find_route(&scene.payer, &scene.params, None, InFlightHtlcs::new());
    assert_eq!(probe, Err("nothing is sent that is no payment of ours"));
}

#[test]
fn more_than_a_row_asks_for_has_no_way() {
    let mut scene = scene();
    scene.params.final_value_msat = MSAT + 1;
    assert_eq!(scene.pays(scene.way(1, MSAT, 0)), Err("this is no payment of ours"));
}

#[test]
fn a_payee_is_given_no_more_than_it_asked_for_and_a_way_costs_no_more_than_its_ceiling() {
    let scene = scene();
    assert!(scene.pays(scene.way(1, MSAT, FEE)).is_ok());
    assert_eq!(scene.pays(scene.way(1, MSAT * 3, 0)), Err("the payee takes only more than it has asked for"));
    assert_eq!(scene.pays(scene.way(1, MSAT + 1, 0)), Err("the payee takes only more than it has asked for"));
    assert_eq!(scene.pays(scene.way(1, MSAT, FEE + 1)), Err("every way costs more than the payment's ceiling"));
}

#[test]
fn parts_are_written_down_before_they_go_out_and_added_up_when_none_is_out() {
    let scene = scene();
    let id = payment().id;
    scene.pays(scene.way(1, MSAT, 0)).unwrap();
    assert!(!scene.router.is_parted(id) && scene.stage.take().steps.is_empty(), "one part is no part");
    scene.pays(scene.way(2, MSAT, 0)).unwrap();
    assert!(scene.router.is_parted(id));
    assert_eq!(scene.stage.take().steps, [Step::Parts(id)]);
    assert!(scene.router.parted().is_empty(), "more of it may go out");
    scene.router.forget(id);
    assert_eq!(scene.router.parted(), [id]);
    for are_out in [false, false, true, false, false] {
        assert!(!scene.router.parts_are_over(id, are_out));
    }
    assert!(scene.router.parts_are_over(id, false));
    assert!(!scene.router.is_parted(id));
}

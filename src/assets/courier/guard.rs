//! The resolver that finds no addresses but those that a stranger may make the gateway call.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::public_address::is_public;

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
#[error("{name} has no public address")]
pub(super) struct NotPublic {
    name: String,
}

/// Answers only public addresses. What it answers is what is connected to: nobody asks a second time.
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(NotPublic { name: name.as_str().to_owned() }.into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_of_this_machine_leads_nowhere() {
        let refused = PublicOnly.resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert_eq!(refused.downcast_ref::<NotPublic>().unwrap().to_string(), "localhost has no public address");
    }
}

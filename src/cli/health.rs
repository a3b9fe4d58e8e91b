use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::failure::{Failure, print};
use super::{Settings, block_on};
use crate::ports::root_cause;

const PATIENCE: Duration = Duration::from_secs(3);

/// Ask a running gateway how it is
///
/// Prints every rail by name; exits with 1 if it is not ready or does not answer. Made for health checks of containers.
#[derive(Args)]
#[command(after_help = "Examples:\n  sluice health\n  sluice health --live")]
pub(super) struct Health {
    /// Whether it answers at all, and not whether it is ready
    #[arg(long)]
    live: bool,
    /// What to ask [default: the operator listener of the configuration]
    #[arg(long, conflicts_with = "live")]
    url: Option<String>,
}

impl Health {
    pub(super) fn run(self, settings: &Settings) -> Result<ExitCode, Failure> {
        let url = match self.url {
            Some(url) => url,
            None => {
                let path = if self.live { "live" } else { "ready" };
                format!("http://{}/health/{path}", reachable(settings.load()?.operator.listen))
            }
        };
        block_on(ask(&url))
    }
}

async fn ask(url: &str) -> Result<ExitCode, Failure> {
    let no_answer = |error: reqwest::Error| Failure::new(format!("no answer: {}", root_cause(&error)));
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().map_err(no_answer)?;
    let answer = client.get(url).send().await.map_err(no_answer)?;
    let is_well = answer.status().is_success();
    print(answer.text().await.map_err(no_answer)?.trim_end())?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An address that listens everywhere is reached here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_asked_here() {
        assert_eq!(reachable("0.0.0.0:9".parse().unwrap()).to_string(), "127.0.0.1:9");
        assert_eq!(reachable("[::]:9".parse().unwrap()).to_string(), "[::1]:9");
        assert_eq!(reachable("10.0.0.1:9".parse().unwrap()).to_string(), "10.0.0.1:9");
    }
}

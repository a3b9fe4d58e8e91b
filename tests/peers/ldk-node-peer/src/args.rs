//! What the program is told on its command line.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

pub struct Args {
    pub dir: PathBuf,
    pub rpc: SocketAddr,
    pub rpc_user: String,
    pub rpc_password: String,
    pub listen: SocketAddr,
    pub alias: String,
    /// Base in millisatoshis and parts per million, taken for forwarding over any channel.
    pub fees: Option<(u32, u32)>,
}

const USAGE: &str = "ldk-node-peer --dir D --rpc HOST:PORT (--rpc-user U --rpc-password P | --rpc-cookie FILE) \
                     [--listen 127.0.0.1:0] [--alias A] [--sloppy-fees BASE:PPM]";

impl Args {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let (mut dir, mut rpc, mut user, mut password, mut fees) = (None, None, None, None, None);
        let mut listen: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut alias = "peer".to_owned();
        while let Some(name) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            match name.as_str() {
                "--dir" => dir = Some(PathBuf::from(value)),
                "--rpc" => rpc = Some(value.parse()?),
                "--rpc-user" => user = Some(value),
                "--rpc-password" => password = Some(value),
                "--rpc-cookie" => {
                    let cookie = std::fs::read_to_string(value)?;
                    let (name, secret) = cookie.trim().split_once(':').ok_or("that is no cookie file")?;
                    (user, password) = (Some(name.to_owned()), Some(secret.to_owned()));
                }
                "--listen" => listen = value.parse()?,
                "--alias" => alias = value,
                "--sloppy-fees" => {
                    let (base, ppm) = value.split_once(':').ok_or(USAGE)?;
                    fees = Some((base.parse()?, ppm.parse()?));
                }
                _ => return Err(format!("{name}? {USAGE}").into()),
            }
        }
        Ok(Self {
            dir: dir.ok_or(USAGE)?,
            rpc: rpc.ok_or(USAGE)?,
            rpc_user: user.ok_or(USAGE)?,
            rpc_password: password.ok_or(USAGE)?,
            listen,
            alias,
            fees,
        })
    }
}

//! Values that stand in the examples of the OpenAPI document.

pub const PSBT: &str = "cHNidP8BAF4CAAAAAfSS4vE0nyOeRnkMQqSWW0Cvd5G9NyUbMCMz9yR5pQxuAAAAAAD9////AaCGAQAAAAAAIlEgYHba4/DLqiVCR/uU9vWXZZiyHJcOn1x22zmrFOUGq1UAAAAAAAEBK4iKAQAAAAAAIlEgYHba4/DLqiVCR/uU9vWXZZiyHJcOn1x22zmrFOUGq1UAAA==";
pub const TXID: &str = "6e0ca57924f733230233251bbd9177af405b96a4420c79469e239f34f1e292f4";
pub const ADDRESS: &str = "bcrt1pvpmd0cuvyha2sjylhr57kd6t8x9jrju8f063mdvkmk4c5uq464qqjpeapm";
pub const ID: &str = "0198c0f2-9d7c-7f6e-a1c2-0d3be5a90b47";
pub const TIME: &str = "2025-11-21T00:10:00Z";
pub const RGB: &str = "rgb:2dkSTbr-jFhznbPmo-TQafzswCN-av4gTsJjX-ttx6CNou5-M98k8Zd";

//! Values that stand in the examples of the OpenAPI document.

pub const PSBT: &str = "cHNidP8BAIkCAAAAAYcdjp23xyT5mE5qRv0KliqFuy3mhQcvsTuo8+3s5AY4AAAAAAD/////AlDDAAAAAAAAIlEgsXT6FYBtG0w02YkOKmYQzaSXZHPgVQzvw8QYtuti/5V7HPUFAAAAACJRIGkL75IxImgdopTRXx5SgvuYRdAcKON0rs0U4EFOtrYkaAAAAAABASsA4fUFAAAAACJRIA6SWbS19+SR3OjlQD+MetnPhUQUnjO3tFR3fY3t9z6OIRYfPSvoq2EZ8qDPqOnQJrbpFRhrjwDgHZ1uCQfVF+d0uxkAVsSrtlYAAIABAACAAAAAgAAAAAAAAAAAARcgHz0r6KthGfKgz6jp0Ca26RUYa48A4B2dbgkH1RfndLsAAAEFIJUJfXER0gUdmlSVO+CIlinHB48jiDGyJcow5r32rwWEIQeVCX1xEdIFHZpUlTvgiJYpxwePI4gxsiXKMOa99q8FhBkAVsSrtlYAAIABAACAAAAAgAAAAAACAAAAAA==";
pub const TXID: &str = "6e0ca57924f733230233251bbd9177af405b96a4420c79469e239f34f1e292f4";
pub const ADDRESS: &str = "bcrt1pvpmd0cuvyha2sjylhr57kd6t8x9jrju8f063mdvkmk4c5uq464qqjpeapm";
pub const ID: &str = "0198c0f2-9d7c-7f6e-a1c2-0d3be5a90b47";
pub const TIME: &str = "2025-11-21T00:10:00Z";
pub const RGB: &str = "rgb:2dkSTbr-jFhznbPmo-TQafzswCN-av4gTsJjX-ttx6CNou5-M98k8Zd";

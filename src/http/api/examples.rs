//! Values that stand in the examples of the OpenAPI document.

pub const PSBT: &str = "cHNidP8BAIkCAAAAAYcdjp23xyT5mE5qRv0KliqFuy3mhQcvsTuo8+3s5AY4AAAAAAD/////AlDDAAAAAAAAIlEgsXT6FYBtG0w02YkOKmYQzaSXZHPgVQzvw8QYtuti/5V7HPUFAAAAACJRIGkL75IxImgdopTRXx5SgvuYRdAcKON0rs0U4EFOtrYkaAAAAAABASsA4fUFAAAAACJRIA6SWbS19+SR3OjlQD+MetnPhUQUnjO3tFR3fY3t9z6OIRYfPSvoq2EZ8qDPqOnQJrbpFRhrjwDgHZ1uCQfVF+d0uxkAVsSrtlYAAIABAACAAAAAgAAAAAAAAAAAARcgHz0r6KthGfKgz6jp0Ca26RUYa48A4B2dbgkH1RfndLsAAAEFIJUJfXER0gUdmlSVO+CIlinHB48jiDGyJcow5r32rwWEIQeVCX1xEdIFHZpUlTvgiJYpxwePI4gxsiXKMOa99q8FhBkAVsSrtlYAAIABAACAAAAAgAAAAAACAAAAAA==";
pub const TXID: &str = "6e0ca57924f733230233251bbd9177af405b96a4420c79469e239f34f1e292f4";
pub const ADDRESS: &str = "bcrt1pvpmd0cuvyha2sjylhr57kd6t8x9jrju8f063mdvkmk4c5uq464qqjpeapm";
pub const ID: &str = "0198c0f2-9d7c-7f6e-a1c2-0d3be5a90b47";
pub const WALLET: &str = "0922385b88fd67ab";
pub const TIME: &str = "2025-11-21T00:10:00Z";
pub const RGB: &str = "rgb:2dkSTbr-jFhznbPmo-TQafzswCN-av4gTsJjX-ttx6CNou5-M98k8Zd";
pub const RECIPIENT: &str = "bcrt:utxob:0T6NVLU2-KN3Z7dg-aPsGCuG-4oYxUpR-b2MfU3u-XRRbvPj-YnJwN";
/// For any asset, and paid to nobody: its coin is no one's.
pub const RGB_INVOICE: &str = "rgb:~/~/BF/bcrt:utxob:0T6NVLU2-KN3Z7dg-aPsGCuG-4oYxUpR-b2MfU3u-XRRbvPj-YnJwN?endpoints=rpcs://gateway.example/json-rpc";
/// Good for fifty years, and paid to nobody.
pub const INVOICE: &str = "lnbcrt50u1p53l2uqpp5fwcxlrjw8fm3t5sp64eap2jzxa3w2hdt6cdzcq3837jke3kjjnsqsp5adstmms9t9nngv66jduxydkzmany9w0jwv8lxrjjgtndfs0nlmqs9qyysgqcqzysxq8p0rm7sqdqvdaexgetjyqms6w8hh2q33fwpgp3huruat7jgd6lfrf8phdx8lt69pcvk6gze0gxnudsl9aawcf03ns5lfrz2y25rrl24m7ygmgrlk50w45jzakkh8pgpduy90n";
pub const HASH: &str = "4bb06f8e4e3a7715d201d573d0aa423762e55dabd61a2c02278fa56cc6d294e0";
pub const PREIMAGE: &str = "0707070707070707070707070707070707070707070707070707070707070707";
pub const NODE: &str = "03a503345ec02523a4649b12d4a0f6837161ce4a16f03e0ec553cfe3b5bd68111d";
/// The consent to pay that invoice, by the wallet of the address above.
pub const MESSAGE: &str = "Sluice spend authorization v1\ngateway: d9a1f0c37be24a65\nchain: 0f9188f13cb7b2c7\nwallet: 0922385b88fd67ab\nrequest: 0198c0f29d7c7f6ea1c20d3be5a90b47\nkind: pay\nto: 4bb06f8e4e3a7715d201d573d0aa423762e55dabd61a2c02278fa56cc6d294e0\namount: 5000000 msat\nmax_fee: 50000 msat\nexpires: 2025-11-21T00:10:00Z";
pub const AUTHORIZATION: &str = "cHNidP8BAD0AAAAAAe7wXv9iobq8hgy7JOFM2WAtdIqsggaLZksbxZY9mZJbAAAAAAAAAAAAAQAAAAAAAAAAAWoAAAAAAQn9KAFTbHVpY2Ugc3BlbmQgYXV0aG9yaXphdGlvbiB2MQpnYXRld2F5OiBkOWExZjBjMzdiZTI0YTY1CmNoYWluOiAwZjkxODhmMTNjYjdiMmM3CndhbGxldDogMDkyMjM4NWI4OGZkNjdhYgpyZXF1ZXN0OiAwMTk4YzBmMjlkN2M3ZjZlYTFjMjBkM2JlNWE5MGI0NwpraW5kOiBwYXkKdG86IDRiYjA2ZjhlNGUzYTc3MTVkMjAxZDU3M2QwYWE0MjM3NjJlNTVkYWJkNjFhMmMwMjI3OGZhNTZjYzZkMjk0ZTAKYW1vdW50OiA1MDAwMDAwIG1zYXQKbWF4X2ZlZTogNTAwMDAgbXNhdApleHBpcmVzOiAyMDI1LTExLTIxVDAwOjEwOjAwWgABAIAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/////yIAIPE7l10tOcfw4BxazAluqim77NMMLtSiVd5kL2nGs3M3AAAAAAEAAAAAAAAAACJRIGB21+OMJfqoSJ+46es3SzmLIcuHS/UdtZbdq4pwFdVAAAAAAAEBKwAAAAAAAAAAIlEgYHbX44wl+qhIn7jp6zdLOYshy4dL9R21lt2rinAV1UAhFvVTl7DeXu/r12DmFcVQxaWEiT/sG3HRQ1RIgtZstGVEGQAfW9ffVgAAgAEAAIAAAACAAAAAAAAAAAABFyD1U5ew3l7v69dg5hXFUMWlhIk/7Btx0UNUSILWbLRlRAAA";
pub const SIGNED_AUTHORIZATION: &str = "00000000000101eef05eff62a1babc860cbb24e14cd9602d748aac82068b664b1bc5963d99925b000000000000000000010000000000000000016a01405c61c452e32cbfdf5a1bcbf106f2860862bb91a67384964679e0a414e8ad45be43b1af4b4dc16a53dc2631f7bdd531bab771a674b858c0884f61437ce13e335c00000000";
pub const SIGNATURE: &str = "AUBcYcRS4yy/31oby/EG8oYIYruRpnOElkZ54KQU6K1FvkOxr0tNwWpT3CYx973VMbq3caZ0uFjAiE9hQ3zhPjNc";
/// What that wallet grants to a key.
pub const GRANT: &str = "Sluice spending grant v1\ngateway: d9a1f0c37be24a65\nchain: 0f9188f13cb7b2c7\nwallet: 0922385b88fd67ab\nkey: 5f1c09ab77d2\nkey_hash: 6b86b273ff34fce19d6b804eff5a3f57\nlimit: 1000000000 msat per day\nper_payment: 50000000 msat\nexpires: 2025-11-21T00:10:00Z";
/// The consent of that wallet to an export.
pub const EXPORT: &str = "Sluice RGB state export v1\ngateway: d9a1f0c37be24a65\nchain: 0f9188f13cb7b2c7\nwallet: 0922385b88fd67ab\nexport: 0198c0f29d7c7f6ea1c20d3be5a90b47\nexpires: 2025-11-21T00:10:00Z";
pub const EXPORT_PSBT: &str = "cHNidP8BAD0AAAAAATLc/9IxTQKiBrnppiP+TKoytEUtcosRIwgOexoK+NU/AAAAAAAAAAAAAQAAAAAAAAAAAWoAAAAAAQmsU2x1aWNlIFJHQiBzdGF0ZSBleHBvcnQgdjEKZ2F0ZXdheTogZDlhMWYwYzM3YmUyNGE2NQpjaGFpbjogMGY5MTg4ZjEzY2I3YjJjNwp3YWxsZXQ6IDA5MjIzODViODhmZDY3YWIKZXhwb3J0OiAwMTk4YzBmMjlkN2M3ZjZlYTFjMjBkM2JlNWE5MGI0NwpleHBpcmVzOiAyMDI1LTExLTIxVDAwOjEwOjAwWgABAIAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/////yIAIKbwob5lvfkBA89gKMYN5OrdlRgUeFO84F6evwmjI9yUAAAAAAEAAAAAAAAAACJRIGB21+OMJfqoSJ+46es3SzmLIcuHS/UdtZbdq4pwFdVAAAAAAAEBKwAAAAAAAAAAIlEgYHbX44wl+qhIn7jp6zdLOYshy4dL9R21lt2rinAV1UAhFvVTl7DeXu/r12DmFcVQxaWEiT/sG3HRQ1RIgtZstGVEGQAfW9ffVgAAgAEAAIAAAACAAAAAAAAAAAABFyD1U5ew3l7v69dg5hXFUMWlhIk/7Btx0UNUSILWbLRlRAAA";

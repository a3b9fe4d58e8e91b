#[test]
fn boots() {}

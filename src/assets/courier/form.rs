//! A form with a file, as proxies take consignments.

/// The body of a form, and its content type.
pub(super) struct Form {
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Form {
    /// Nobody who has made the file could know the line between its parts.
    pub(super) fn new(texts: &[(&str, &str)], file: &[u8]) -> Self {
        Self::with_boundary(&format!("{:032x}", rand::random::<u128>()), texts, file)
    }

    fn with_boundary(boundary: &str, texts: &[(&str, &str)], file: &[u8]) -> Self {
        let mut body = Vec::with_capacity(file.len().saturating_add(1_024));
        for (name, text) in texts {
            let part = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
            body.extend_from_slice(part.as_bytes());
        }
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"consignment\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(file);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        Self { content_type: format!("multipart/form-data; boundary={boundary}"), body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_its_texts_and_then_its_file() {
        let form = Form::with_boundary("xx", &[("method", "m"), ("params", "{\"a\":1}")], b"\0\r\n--x\xff");
        let expected = b"--xx\r\nContent-Disposition: form-data; name=\"method\"\r\n\r\nm\r\n\
            --xx\r\nContent-Disposition: form-data; name=\"params\"\r\n\r\n{\"a\":1}\r\n\
            --xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"consignment\"\r\n\
            Content-Type: application/octet-stream\r\n\r\n\0\r\n--x\xff\r\n--xx--\r\n";
        assert_eq!(String::from_utf8_lossy(&form.body), String::from_utf8_lossy(expected));
        assert_eq!(form.content_type, "multipart/form-data; boundary=xx");
    }

    #[test]
    fn no_two_forms_have_the_same_line_between_their_parts() {
        let (one, other) = (Form::new(&[], b""), Form::new(&[], b""));
        assert_ne!(one.content_type, other.content_type);
        assert!(one.content_type.len() == "multipart/form-data; boundary=".len() + 32);
    }
}

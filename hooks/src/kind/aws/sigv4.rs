//! AWS's signature, version 4: `docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html`.

use qualm_model::time::Timestamp;
use ring::{digest, hmac};

/// Who signs, where and for what.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// Id of the access key.
    pub key_id: &'a str,
    /// The secret access key.
    pub secret: &'a str,
    /// Region, as `us-east-1`, which is IAM's.
    pub region: &'a str,
    /// Service, as `iam`.
    pub service: &'a str,
}

/// A request as it is signed. Names of headers are in lower case and in their order.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, encoded.
    pub path: &'a str,
    /// The query, encoded and in order.
    pub query: &'a str,
    /// All headers that are signed, `host` and `x-amz-date` among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// The time as AWS writes it: `20150830T123600Z`.
pub fn amz_date(now: Timestamp) -> String {
    let second = now.0.div_euclid(1_000_000_000);
    jiff::Timestamp::from_second(second).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The value of header `authorization`.
pub fn authorization(scope: Scope<'_>, request: Signed<'_>, amz_date: &str) -> String {
    let names = request.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let headers: String = request.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{}",
        request.method,
        request.path,
        request.query,
        const_hex::encode(digest::digest(&digest::SHA256, request.body).as_ref())
    );
    let day = &amz_date[..8];
    let of = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let hashed = const_hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{amz_date}\n{of}\n{hashed}");
    let mut key = format!("AWS4{}", scope.secret).into_bytes();
    for part in [day, scope.region, scope.service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = const_hex::encode(mac(&key, to_sign.as_bytes()));
    format!("AWS4-HMAC-SHA256 Credential={}/{of}, SignedHeaders={names}, Signature={signature}", scope.key_id)
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const AT: &str = "20150830T123600Z";

    #[test]
    fn the_published_example_of_iam_has_its_published_signature() {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", AT),
        ];
        let query = "Action=ListUsers&Version=2010-05-08";
        let request = Signed { method: "GET", path: "/", query, headers: &headers, body: b"" };
        let scope = Scope { key_id: "AKIDEXAMPLE", secret: SECRET, region: "us-east-1", service: "iam" };
        assert_eq!(
            authorization(scope, request, AT),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn the_test_suites_plain_get_has_its_published_signature() {
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", AT)];
        let request = Signed { method: "GET", path: "/", query: "", headers: &headers, body: b"" };
        let scope = Scope { key_id: "AKIDEXAMPLE", secret: SECRET, region: "us-east-1", service: "service" };
        let signed = authorization(scope, request, AT);
        assert!(signed.ends_with("5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"), "{signed}");
    }

    #[test]
    fn a_time_is_written_as_aws_does() {
        assert_eq!(amz_date(Timestamp::from_seconds(1_440_938_160)), AT);
    }
}

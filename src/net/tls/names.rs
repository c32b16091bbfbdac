//! The names in a client's certificate. It has been verified before: what is not as it should be is left out.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::pdata::ClientCertificate;

/// DER's tags: constructed sequence and set, object identifier, and the strings that are read.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];

/// Attributes of names, as object identifiers are encoded: 2.5.4.3, 2.5.4.10 and 2.5.4.11.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
const ORGANIZATION: [u8; 3] = [0x55, 0x04, 0x0a];
const ORGANIZATIONAL_UNIT: [u8; 3] = [0x55, 0x04, 0x0b];

/// Reads the names of a certificate; `None` if it is none.
pub fn names(certificate: &CertificateDer<'_>) -> Option<ClientCertificate> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut names = subject(certificate.subject());
    names.dns_names = certificate.valid_dns_names().map(str::to_owned).collect();
    names.uris = certificate.valid_uri_names().map(str::to_owned).collect();
    Some(names)
}

/// Reads a subject: sets of pairs of an identifier and a string. Of several common names the last counts, as it does
/// in Go; of others the first.
fn subject(mut sets: &[u8]) -> ClientCertificate {
    let mut names = ClientCertificate::default();
    while let Some((SET, mut pairs, rest)) = element(sets) {
        sets = rest;
        while let Some((SEQUENCE, pair, rest)) = element(pairs) {
            pairs = rest;
            let Some((OID, id, value)) = element(pair) else { continue };
            let Some((tag, text, _)) = element(value) else { continue };
            let text = std::str::from_utf8(text).ok().filter(|_| STRINGS.contains(&tag)).map(str::to_owned);
            let Some(text) = text else { continue };
            match <[u8; 3]>::try_from(id) {
                Ok(COMMON_NAME) => names.common_name = Some(text),
                Ok(ORGANIZATION) => drop(names.organization.get_or_insert(text)),
                Ok(ORGANIZATIONAL_UNIT) => drop(names.organizational_unit.get_or_insert(text)),
                _ => {}
            }
        }
    }
    names
}

/// The first element: its tag, its content and what follows it. Lengths take three bytes at most.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (len, rest) = match bytes {
        [_, len @ ..=0x7f, rest @ ..] => (usize::from(*len), rest),
        [_, 0x81, len, rest @ ..] => (usize::from(*len), rest),
        [_, 0x82, high, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*bytes.first()?, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn read(set: impl Fn(&mut CertificateParams)) -> ClientCertificate {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        set(&mut params);
        let key = KeyPair::generate().unwrap();
        names(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn subject_and_alternative_names_are_read() {
        let long = "x".repeat(300);
        let got = read(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CountryName, "SE");
            name.push(DnType::OrganizationName, DnValue::PrintableString("Example".try_into().unwrap()));
            name.push(DnType::OrganizationalUnitName, long.as_str());
            name.push(DnType::CommonName, "tëam");
            params.subject_alt_names = vec![
                SanType::DnsName("a.example".try_into().unwrap()),
                SanType::IpAddress([127, 0, 0, 1].into()),
                SanType::URI("spiffe://example/ns/a".try_into().unwrap()),
                SanType::DnsName("b.example".try_into().unwrap()),
            ];
        });
        let want = ClientCertificate {
            common_name: Some("tëam".to_owned()),
            organization: Some("Example".to_owned()),
            organizational_unit: Some(long),
            dns_names: vec!["a.example".to_owned(), "b.example".to_owned()],
            uris: vec!["spiffe://example/ns/a".to_owned()],
        };
        assert_eq!(got, want);
        assert_eq!(read(|_| {}), ClientCertificate::default());
    }

    #[test]
    fn any_bytes_are_survived() {
        assert_eq!(names(&CertificateDer::from(b"no certificate".to_vec())), None);
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..rng.usize(..40))
                .map(|_| *rng.choice(&[0x30, 0x31, 6, 3, 0x55, 4, 0x82, 0, 9, 0xff]).unwrap())
                .collect();
            subject(&bytes);
        }
    }
}

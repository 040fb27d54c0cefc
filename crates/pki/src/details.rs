//! The contents of a certificate.

use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::PkiError;
use crate::host::canonical_host;
use crate::token::{Pin, hex};

/// The fields of a certificate that Quorate uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    pub user: String,
    pub groups: Vec<String>,
    pub issuer: String,
    pub hosts: Vec<String>,
    pub is_authority: bool,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub serial: String,
    /// SHA-256 hash of the certificate.
    pub fingerprint: String,
    pub key_pin: Pin,
}

/// Reads the first certificate of a PEM document.
///
/// # Errors
/// Fails when there is no readable certificate.
pub fn details(pem: &[u8]) -> Result<Details, PkiError> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|source| PkiError::Pem { what: "certificate", source })?;
    let malformed = |error: &dyn std::fmt::Display| PkiError::Malformed(error.to_string());
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| malformed(&error))?;
    let time = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| malformed(&error));
    let (subject, validity) = (certificate.subject(), certificate.validity());
    let first = |name: &x509_parser::x509::X509Name<'_>| {
        name.iter_common_name().find_map(|cn| cn.as_str().ok()).unwrap_or_default().to_owned()
    };
    let names = certificate.subject_alternative_name().map_err(|error| malformed(&error))?;
    let hosts = names.into_iter().flat_map(|names| names.value.general_names.iter()).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    Ok(Details {
        user: first(subject),
        groups: subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect(),
        issuer: first(certificate.issuer()),
        hosts: hosts.collect(),
        is_authority: certificate.is_ca(),
        not_before: time(validity.not_before.timestamp())?,
        not_after: time(validity.not_after.timestamp())?,
        serial: hex(certificate.raw_serial()),
        fingerprint: hex(&Sha256::digest(&der)),
        key_pin: Pin::of_key(certificate.tbs_certificate.subject_pki.raw),
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four: Option<[u8; 4]> = bytes.try_into().ok();
    let sixteen: Option<[u8; 16]> = bytes.try_into().ok();
    four.map(IpAddr::from).or(sixteen.map(IpAddr::from))
}

impl Details {
    /// Returns the remaining validity; `None` when the certificate has expired.
    #[must_use]
    pub fn remaining(&self, now: OffsetDateTime) -> Option<Duration> {
        (self.not_after - now).try_into().ok()
    }

    /// Returns whether the certificate is due for renewal: less than a third of its lifetime is left.
    #[must_use]
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        self.not_after - now < (self.not_after - self.not_before) / 3
    }

    /// Returns whether the certificate is valid for all of these hosts, in whatever form they are written.
    #[must_use]
    pub fn covers(&self, hosts: &[String]) -> bool {
        let own: Vec<_> = self.hosts.iter().map(|host| canonical_host(host)).collect();
        hosts.iter().all(|host| own.contains(&canonical_host(host)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::files::{Pair, read};
    use crate::{Subject, Usage};

    #[test]
    fn a_certificate_is_due_in_the_last_third_of_its_lifetime() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ca = Authority::create("ca", Duration::from_secs(1000)).expect("an authority");
        let hosts = vec!["w1".to_owned(), "10.0.0.4".to_owned(), "fd00::4".to_owned()];
        let group = Some("system:nodes".to_owned());
        let subject = Subject { user: "system:node:w1".to_owned(), group, hosts: hosts.clone(), usage: Usage::Server };
        let pair = Pair::new(dir.path(), "w1");
        ca.issue(&pair, &subject, Duration::from_secs(900)).expect("a certificate");
        let found = details(read(&pair.cert).expect("a file").as_bytes()).expect("a certificate");
        assert_eq!((found.user.as_str(), &found.groups[..]), ("system:node:w1", &["system:nodes".to_owned()][..]));
        assert_eq!((found.issuer.as_str(), &found.hosts, found.is_authority), ("quorate-ca", &hosts, false));
        assert!(found.covers(&hosts[1..]) && !found.covers(&["10.0.0.5".to_owned()]));
        let at = |seconds: i64| found.not_before + time::Duration::seconds(seconds);
        assert!(!found.is_due(at(600)) && found.is_due(at(661)));
        assert!(found.remaining(at(989)).is_some() && found.remaining(at(991)).is_none());
        let ca = details(ca.certificate_pem().as_bytes()).expect("a certificate");
        assert!(ca.is_authority);
    }
}

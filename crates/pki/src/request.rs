//! Requests for certificates. A machine keeps its private key and sends the public key.

use std::net::IpAddr;

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair, PublicKey, PublicKeyData, SanType};

use crate::error::PkiError;
use crate::files::Pair;
use crate::host::canonical_host;
use crate::token::Pin;

/// A machine, identified by its key, which never leaves it.
pub struct Machine {
    key: KeyPair,
}

impl Machine {
    /// Opens the machine whose key is in `pair`. The key is created when it does not exist.
    ///
    /// # Errors
    /// Fails like [`Pair::key`].
    pub fn open(pair: &Pair) -> Result<Machine, PkiError> {
        Ok(Machine { key: pair.key()? })
    }

    /// Returns a request for a certificate for `hosts`, as PEM.
    ///
    /// # Errors
    /// Fails when a host is not a valid name in a certificate.
    pub fn request(&self, hosts: &[String]) -> Result<String, PkiError> {
        let make = |source| PkiError::Make { what: "the request for a certificate".to_owned(), source };
        let hosts: Vec<_> = hosts.iter().map(|host| canonical_host(host)).collect();
        let params = CertificateParams::new(hosts).map_err(make)?;
        params.serialize_request(&self.key).and_then(|request| request.pem()).map_err(make)
    }
}

/// A request whose sender has proved that it holds the key. Only its key and its hosts are used.
pub struct SigningRequest {
    pub public_key: PublicKey,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl SigningRequest {
    /// # Errors
    /// Fails when the request is malformed or its signature does not match its key.
    pub fn from_pem(pem: &str) -> Result<SigningRequest, PkiError> {
        let CertificateSigningRequestParams { params, public_key } = CertificateSigningRequestParams::from_pem(pem)
            .map_err(|source| PkiError::Unusable { what: "the request for a certificate".to_owned(), source })?;
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        for name in params.subject_alt_names {
            match name {
                SanType::DnsName(name) => names.push(name.to_string()),
                SanType::IpAddress(address) => addresses.push(address),
                other => return Err(PkiError::UnknownName(format!("{other:?}"))),
            }
        }
        Ok(SigningRequest { public_key, names, addresses })
    }

    /// Returns the hash of the machine's key.
    #[must_use]
    pub fn key_pin(&self) -> Pin {
        Pin::of_key(&self.public_key.subject_public_key_info())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_proves_its_key_and_names_its_hosts() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let machine = Machine::open(&Pair::new(dir.path(), "node")).expect("a key");
        let again = Machine::open(&Pair::new(dir.path(), "node")).expect("the same key");
        let pem = machine.request(&["w1".to_owned(), "10.0.0.4".to_owned()]).expect("a request");
        let request = SigningRequest::from_pem(&pem).expect("its own");
        assert_eq!((&request.names[..], &request.addresses[..]), (&["w1".to_owned()][..], &[[10, 0, 0, 4].into()][..]));
        let other = SigningRequest::from_pem(&again.request(&[]).expect("a request")).expect("its own");
        assert_eq!(request.key_pin(), other.key_pin());
        // A changed body does not match the signature.
        let forged = pem.replacen('M', "N", 1);
        assert!(SigningRequest::from_pem(&forged).is_err());
    }
}

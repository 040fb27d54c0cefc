//! The token with which a machine joins: `ID.SECRET.PIN`.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::PkiError;

/// SHA-256 hash of a public key's `SubjectPublicKeyInfo`, as in kubeadm's `--discovery-token-ca-cert-hash`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin(String);

impl Pin {
    /// Returns the hash of a DER-encoded `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn of_key(public_key_info: &[u8]) -> Pin {
        Pin(hex(&Sha256::digest(public_key_info)))
    }

    /// Returns the key hash of the first certificate.
    ///
    /// # Errors
    /// Fails when there is no readable certificate.
    pub fn of_certificate(pem: &[u8]) -> Result<Pin, PkiError> {
        let der =
            CertificateDer::from_pem_slice(pem).map_err(|source| PkiError::Pem { what: "certificate", source })?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|error| PkiError::Malformed(error.to_string()))?;
        Ok(Pin::of_key(certificate.tbs_certificate.subject_pki.raw))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Formats bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |text, byte| format!("{text}{byte:02x}"))
}

/// Token with which machines join: a public id, a secret, and the hash of the authority that the machine should trust.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub id: String,
    pub secret: String,
    pub pin: Pin,
}

const ID_DIGITS: usize = 8;
const SECRET_DIGITS: usize = 32;
const PIN_DIGITS: usize = 64;

impl JoinToken {
    /// Creates a token with a new id and secret.
    #[must_use]
    pub fn new(pin: Pin) -> JoinToken {
        let (id, secret): ([u8; ID_DIGITS / 2], [u8; SECRET_DIGITS / 2]) = (rand::random(), rand::random());
        JoinToken { id: hex(&id), secret: hex(&secret), pin }
    }

    /// Returns the hash of the secret. The cluster stores only this hash.
    #[must_use]
    pub fn hash_of(secret: &str) -> String {
        hex(&Sha256::digest(secret.as_bytes()))
    }
}

/// Omits the secret, because logs have many readers.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, self.pin)
    }
}

impl FromStr for JoinToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        match text.trim().split('.').collect::<Vec<_>>()[..] {
            [id, secret, pin] if is_hex(id, ID_DIGITS) && is_hex(secret, SECRET_DIGITS) && is_hex(pin, PIN_DIGITS) => {
                Ok(JoinToken { id: id.to_owned(), secret: secret.to_owned(), pin: Pin(pin.to_owned()) })
            }
            _ => Err("this is not a join token; `qctl token create` prints one as ID.SECRET.HASH".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_parses_from_its_text_and_its_secret_is_not_logged() {
        let token = JoinToken::new(Pin::of_key(b"key"));
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        let text = token.to_string();
        for wrong in ["", "a.b.c", &text[1..], &text[..text.len() - 1], &text.replace('.', "-"), &text.to_uppercase()] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }
}

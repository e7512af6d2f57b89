//! What TLS is made of: whom we believe, and who we are. Files, which may change while we run.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroize;

use super::connect::Tls;
use crate::file::{ReloadableFile, Settle};

/// Whom we believe: the built-in roots, unless there is a file of others.
pub(crate) type Roots = Option<ReloadableFile<RootCertStore>>;

/// Who we are, for a gateway that asks: a certificate and its key, each in a file of its own.
pub(crate) struct Identity {
    chain: ReloadableFile<Chain>,
    key: ReloadableFile<Key>,
    /// The last two that belonged together: between the change of one file and that of the other they do not.
    good: ArcSwapOption<CertifiedKey>,
}

/// A certificate, and those between it and its root.
pub(crate) type Chain = Vec<CertificateDer<'static>>;
/// Can sign; cannot be printed.
pub(crate) type Key = Arc<dyn SigningKey>;

impl Identity {
    /// Of two files that are there.
    ///
    /// # Errors
    /// When the key is not the certificate's.
    pub(crate) fn new(
        chain: ReloadableFile<Chain>,
        key: ReloadableFile<Key>,
    ) -> Result<Self, String> {
        let identity = Self {
            chain,
            key,
            good: ArcSwapOption::empty(),
        };
        identity.put_together()?;
        Ok(identity)
    }

    fn put_together(&self) -> Result<(), String> {
        let (Some(chain), Some(key)) = (self.chain.get(), self.key.get()) else {
            return Err("it is missing".to_owned());
        };
        let identity = CertifiedKey::new(chain.to_vec(), Arc::clone(&key));
        identity
            .keys_match()
            .map_err(|_| "the key is not that of the certificate in gateway.client_cert_file")?;
        self.good.store(Some(Arc::new(identity)));
        Ok(())
    }

    /// True when there is a new one.
    fn reload(&self, settle: Settle) -> bool {
        let [chain, key] = [self.chain.reload(settle), self.key.reload(settle)];
        if !chain && !key {
            return false;
        }
        match self.put_together() {
            Ok(()) => true,
            Err(why) => {
                self.key.failures.inc();
                tracing::warn!(
                    why,
                    "client certificate not changed: the last good one, with its key, stays in use"
                );
                false
            }
        }
    }
}

/// The files of one side's TLS.
pub(crate) struct Files {
    roots: Roots,
    identity: Option<Identity>,
    /// Looks that found something bad, in whichever of them.
    pub(super) failures: Counter,
}

impl Files {
    /// Those that were opened.
    pub(super) fn new(mut roots: Roots, mut identity: Option<Identity>) -> Self {
        let failures = Counter::default();
        if let Some(roots) = &mut roots {
            roots.failures = failures.clone();
        }
        if let Some(Identity { chain, key, .. }) = &mut identity {
            (chain.failures, key.failures) = (failures.clone(), failures.clone());
        }
        Self {
            roots,
            identity,
            failures,
        }
    }

    /// Looks at each. True when one of them is new.
    pub(super) fn reload(&self, settle: Settle) -> bool {
        let roots = self
            .roots
            .as_ref()
            .is_some_and(|roots| roots.reload(settle));
        let identity = self
            .identity
            .as_ref()
            .is_some_and(|identity| identity.reload(settle));
        roots || identity
    }

    /// TLS as the files have it now. Session keys are logged nowhere: rustls does so only where it is told to.
    ///
    /// # Errors
    /// Says why there is none.
    pub(super) fn tls(&self) -> Result<Tls, String> {
        let roots = match &self.roots {
            None => Arc::new(RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            }),
            Some(file) => file.get().ok_or("there are no roots")?,
        };
        let full = self.config(aws_lc_rs::default_provider(), &roots)?;
        let kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
        let mut small = self.config(
            CryptoProvider {
                kx_groups,
                ..aws_lc_rs::default_provider()
            },
            &roots,
        )?;
        // A ticket may be as large as the key share that was left out.
        small.resumption = Resumption::disabled();
        Ok(Tls {
            full: Arc::new(full),
            small: Arc::new(small),
        })
    }

    fn config(
        &self,
        provider: CryptoProvider,
        roots: &Arc<RootCertStore>,
    ) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots.clone());
        let Some(identity) = self
            .identity
            .as_ref()
            .and_then(|identity| identity.good.load_full())
        else {
            return Ok(builder.with_no_client_auth());
        };
        let identity: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(identity));
        Ok(builder.with_client_cert_resolver(identity))
    }
}

/// Roots as PEM. No error quotes what was read: it may be a key that was named by mistake, or pasted into one line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(pem)? {
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate in it cannot be used: {error}"))?;
    }
    Ok(roots)
}

/// A certificate as PEM, and those between it and its root behind it.
///
/// # Errors
/// Likewise.
pub(crate) fn chain(pem: &[u8]) -> Result<Chain, String> {
    let chain: Result<Chain, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err("there is no certificate in it (PEM is expected)".to_owned())
        }
        Ok(chain) => Ok(chain),
        Err(_) => Err("it is not well-formed PEM".to_owned()),
    }
}

/// A private key as PEM: PKCS #8, PKCS #1 or SEC 1.
///
/// # Errors
/// Likewise.
pub(crate) fn key(pem: &[u8]) -> Result<Key, String> {
    let mut der = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            "there is no private key in it (PEM without a passphrase is expected)"
        }
        _ => "it is not well-formed PEM",
    })?;
    let key = aws_lc_rs::sign::any_supported_type(&der);
    der.zeroize();
    key.map_err(|_| {
        "its key is of a kind that cannot be used (RSA, ECDSA or Ed25519 is expected)".to_owned()
    })
}

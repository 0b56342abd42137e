//! A key-encryption key that AWS KMS keeps wrapped.
//!
//! KMS is asked when a key is made (GenerateDataKey, 32 bytes) and once for each node's start (Decrypt), never while
//! something is sealed or opened and never inside a database transaction. What it wrapped is bound to the instance by
//! the encryption context, which also stands in CloudTrail with each use. Nodes unwrap by the KMS keys of *their*
//! settings, not by the one that the database names: who can only write to the database cannot have a node seal under
//! a key of their own.
//!
//! Credentials, the shared configuration and the region come by AWS's own ways (decisions/0017).

use super::Error;
use crate::config::{KmsSettings, arn_region};
use aws_config::{BehaviorVersion, Region, timeout::TimeoutConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use statusledger_keys::key_encryption::KeyEncryptionKey;
use std::time::Duration;

/// To connect to KMS.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// For one try of a call; the SDK makes up to three.
const TRY_WITHIN: Duration = Duration::from_secs(10);
/// For a call with its tries, finding the credentials included.
const CALL_WITHIN: Duration = Duration::from_secs(30);

/// What a wrapped key is bound to besides its instance.
const PURPOSE: &str = "key-encryption-key";

/// AWS KMS as the settings name it.
#[derive(Clone, Debug)]
pub struct Kms {
    client: Client,
    /// Those that may have wrapped what is unwrapped; the first wraps what is new.
    keys: Vec<String>,
    /// The region, and the endpoint where it is not AWS's own, for errors.
    place: String,
}

/// A key that was just made, and how it is to be stored.
#[derive(Debug)]
pub struct Wrapped {
    /// The key.
    pub key: KeyEncryptionKey,
    /// What KMS made of it.
    pub blob: Vec<u8>,
    /// The ARN of the KMS key that did.
    pub kms_key: String,
}

impl Kms {
    /// Makes a client; none where the settings name no KMS key. Nothing is sent to KMS yet.
    ///
    /// # Errors
    /// If no region is set anywhere.
    pub async fn new(settings: &KmsSettings) -> Result<Option<Self>, Error> {
        let Some(key) = &settings.key else { return Ok(None) };
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_WITHIN)
            .operation_attempt_timeout(TRY_WITHIN)
            .operation_timeout(CALL_WITHIN)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts);
        // A key's ARN says where it is.
        if let Some(region) = settings.region.as_deref().or_else(|| arn_region(key)) {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(endpoint) = &settings.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let config = loader.load().await;
        let Some(region) = config.region() else { return Err(Error::Region) };
        let mut place = format!("in {region}");
        if let Some(endpoint) = &settings.endpoint {
            place = format!("{place} at {endpoint}");
        }
        let keys = std::iter::once(key).chain(&settings.other_keys).cloned().collect();
        Ok(Some(Self { client: Client::new(&config), keys, place }))
    }

    /// Makes a key for `instance`.
    ///
    /// # Errors
    /// If KMS cannot be reached, or refuses.
    pub async fn generate(&self, instance: &str) -> Result<Wrapped, Error> {
        let kms_key = &self.keys[0];
        let made = self
            .client
            .generate_data_key()
            .key_id(kms_key)
            .key_spec(DataKeySpec::Aes256)
            .encryption_context("statusledger:instance", instance)
            .encryption_context("statusledger:purpose", PURPOSE)
            .send()
            .await
            .map_err(|e| self.refused("make a data key", "kms:GenerateDataKey", kms_key, e))?;
        let incomplete = || Error::Answer { kms_key: kms_key.clone() };
        let key = KeyEncryptionKey::from_unwrapped(made.plaintext.ok_or_else(incomplete)?.into_inner())?;
        let blob = made.ciphertext_blob.ok_or_else(incomplete)?.into_inner();
        Ok(Wrapped { key, blob, kms_key: made.key_id.ok_or_else(incomplete)? })
    }

    /// Unwraps a stored key of `instance`.
    ///
    /// # Errors
    /// If KMS cannot be reached, or refuses it under every key of the settings.
    pub async fn unwrap(&self, instance: &str, blob: &[u8]) -> Result<KeyEncryptionKey, Error> {
        let mut first = None;
        for kms_key in &self.keys {
            let opened = self
                .client
                .decrypt()
                .key_id(kms_key)
                .ciphertext_blob(Blob::new(blob))
                .encryption_context("statusledger:instance", instance)
                .encryption_context("statusledger:purpose", PURPOSE)
                .send()
                .await;
            match opened {
                Ok(opened) => {
                    let plaintext =
                        opened.plaintext.ok_or_else(|| Error::Answer { kms_key: kms_key.clone() })?;
                    return Ok(KeyEncryptionKey::from_unwrapped(plaintext.into_inner())?);
                }
                Err(e) => {
                    // Only KMS's own "not by this key" is a reason to try the next.
                    let next = e.as_service_error().is_some();
                    let error = self.refused("unwrap the key-encryption key", "kms:Decrypt", kms_key, e);
                    if !next {
                        return Err(error);
                    }
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.expect("the settings name at least one KMS key, so one was tried"))
    }

    fn refused<E>(
        &self,
        what: &'static str,
        permission: &'static str,
        kms_key: &str,
        error: SdkError<E>,
    ) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let by = format!("{kms_key} {}", self.place);
        let Some(service) = error.as_service_error() else {
            return Error::Unreachable { what, by, why: chain(&error) };
        };
        // An answer that is not KMS's own (a proxy's) has no name.
        let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
        let code = service.code().map_or_else(|| format!("HTTP {status}"), ToOwned::to_owned);
        let said = format!("{code}: {}", service.message().unwrap_or("no more words"));
        let advice = match code.as_str() {
            "AccessDeniedException" | "HTTP 403" => {
                format!(
                    "the node's credentials need {permission} on this key, and the key has to be the right one"
                )
            }
            "NotFoundException" => "is it the right key, region and account?".into(),
            "IncorrectKeyException" => "the stored key was wrapped by another KMS key".into(),
            "InvalidCiphertextException" => {
                "the stored key was wrapped for another instance or by another key, or was altered".into()
            }
            "DisabledException" | "KMSInvalidStateException" => "the KMS key has to be enabled".into(),
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "ExpiredTokenException"
            | "InvalidSignatureException"
            | "IncompleteSignature" => "the credentials are not valid".into(),
            _ => "see AWS's documentation of this error".into(),
        };
        Error::Refused { what, by, said, advice }
    }
}

/// The words of an error and its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !words.contains(&said) {
            words = format!("{words}: {said}");
        }
        cause = error.source();
    }
    words
}

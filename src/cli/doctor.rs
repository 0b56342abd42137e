//! `doctor`.

use super::show;
use crate::config::Settings;
use crate::database::attach;
use crate::doctor;
use crate::instance::Instance;
use crate::key_encryption::KeyEncryption;
use crate::ledger::checkpoint::SeenHeads;
use crate::sealing::DataKeys;
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Verifies everything stored.
///
/// # Errors
/// If it cannot be looked at.
pub async fn run(settings: &Settings) -> Result<u8> {
    let attached = attach::attach(settings).await?;
    let examined = async {
        if Instance::read(&attached.database).await?.is_none() {
            bail!("the database holds no instance yet; `up` or `serve` makes one");
        }
        let keys = KeyEncryption::load(settings, &settings.instance, &attached.database).await?;
        let data_keys = DataKeys::new(attached.database.clone(), keys);
        let seen = SeenHeads::join(&settings.data_dir.join("heads"))?;
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} entries {eta}")?);
        let examined = doctor::examine(&attached.database, &data_keys, &seen, |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })
        .await;
        bar.finish_and_clear();
        Ok(examined?)
    }
    .await;
    attached.close().await?;
    let examined = examined?;
    for finding in &examined.findings {
        show::note(finding.to_string());
    }
    show::line(format!(
        "{} ledgers, {} entries, {} openings, {} deliveries: {}",
        examined.ledgers,
        examined.entries,
        examined.openings,
        examined.deliveries,
        match examined.findings.len() {
            0 => "all as it was written".to_owned(),
            1 => "1 finding".to_owned(),
            n => format!("{n} findings"),
        }
    ));
    Ok(u8::from(!examined.findings.is_empty()))
}

//! Export: the ledger, or a part of it, as one file that proves itself (docs/receipt.md, "Export").
//!
//! It writes what stands in the database, page by page, in constant memory, and repairs nothing: a row that somebody
//! edited, added or took away is in the file as it is, and the verifier says so. What it will not do is sign anew
//! what this node knows to be another history than it handed out: then the newest checkpoint that was signed before
//! goes with the file, and the entries fail against it. Sealed values are not opened then, and that the file was taken is
//! in the instance's ledger: to the history itself nothing is added.

use super::checkpoint::SignedTree;
use super::draft::is_type;
use super::read;
use super::seen_heads::SeenHeads;
use super::tree::{Range, Stored};
use super::{base64, hex};
use crate::database::Database;
use crate::id::{LedgerId, WorkspaceId};
use crate::keyring::Keyring;
use crate::sealing::{DataKeys, open_opening};
use futures_util::Stream;
use statusledger_verify::checkpoint::SignedCheckpoint;
use statusledger_verify::json::{Object, Value};
use statusledger_verify::time::Timestamp;
use std::io::{self, Cursor, Seek, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Rows read at once.
const PAGE: i64 = 4096;
/// Beyond this many bytes a member needs zip64; what might reach it gets it.
const ZIP32: u64 = u32::MAX as u64;

/// What to export.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose ledger.
    pub workspace: WorkspaceId,
    /// Which of theirs; none: the one that is written to.
    pub ledger: Option<LedgerId>,
    /// The first seq.
    pub from: u64,
    /// One past the last seq; none: the end.
    pub to: Option<u64>,
    /// The types kept; none: all.
    pub types: Option<Vec<String>>,
    /// Whether openings go with it.
    pub openings: bool,
    /// The id of the actor.
    pub exported_by: String,
}

/// What an export is made from.
#[derive(Clone, Debug)]
pub struct Exporter {
    /// The database.
    pub database: Database,
    /// The signing keys.
    pub keyring: Keyring,
    /// The data keys, for openings.
    pub data_keys: DataKeys,
    /// What this node handed out.
    pub seen: SeenHeads,
}

/// An export whose ends are fixed.
#[derive(Debug)]
pub struct Prepared {
    request: Request,
    ledger: LedgerId,
    to: u64,
    tree: SignedTree,
    note: String,
    left: Vec<String>,
    disagreement: Option<String>,
}

impl Prepared {
    /// The ledger.
    #[must_use]
    pub const fn ledger(&self) -> LedgerId {
        self.ledger
    }

    /// One past the last seq.
    #[must_use]
    pub const fn to(&self) -> u64 {
        self.to
    }

    /// Why the history in the database is not the one that was signed, if so. Then openings do not go with it.
    #[must_use]
    pub fn disagreement(&self) -> Option<&str> {
        self.disagreement.as_deref()
    }

    /// Whether openings of sealed values go with it.
    #[must_use]
    pub const fn openings(&self) -> bool {
        self.request.openings
    }

    /// Records that it is taken away, before its first byte leaves: in its own ledger; where the history there is not the
    /// one that was signed, in the instance's.
    ///
    /// # Errors
    /// If the database does not confirm, or the history in question is the instance's own: then nothing may leave.
    pub async fn record(&self, writer: &super::Writer, act: &crate::audit::Act) -> Result<(), read::Error> {
        let Request { workspace, from, ref types, openings, .. } = self.request;
        let mut of = Of { types: types.as_deref(), openings, ..Of::all(self.ledger, from, self.to) };
        let Some(why) = self.disagreement() else {
            return Ok(record(writer, act, workspace, of).await?);
        };
        tracing::error!(%workspace, why, "a history that was not signed is exported");
        let instance = crate::instance::Instance::read(writer.database()).await?;
        match instance {
            Some(instance) if instance.workspace != workspace => {
                of.as_signed = false;
                Ok(record_in(writer, act, instance.workspace, workspace, of).await?)
            }
            _ => Err(read::Error::Unrecorded(why.to_owned())),
        }
    }
}

impl Exporter {
    /// Fixes the ends of an export and signs its checkpoint. None: there is no such workspace.
    ///
    /// # Errors
    /// If the range lies outside the ledger, or nothing can be signed.
    pub async fn prepare(&self, mut request: Request) -> Result<Option<Prepared>, read::Error> {
        if let Some(wrong) = request.types.iter().flatten().find(|kind| !is_type(kind)) {
            return Err(read::Error::Type(wrong.chars().take(80).collect()));
        }
        let mut tx = self.database.workspace(request.workspace).await?;
        let Some((ledger, has)) = read::size_of(&mut tx, request.ledger).await? else { return Ok(None) };
        let asked = request.to.unwrap_or(has);
        if request.from > asked && asked <= has {
            return Err(read::Error::Backwards { from: request.from, to: asked });
        }
        if asked > has {
            return Err(read::Error::Size { has, asked });
        }
        drop(tx);
        let of = (request.workspace, request.ledger);
        let signed =
            read::checkpoint(&self.database, &self.keyring, &self.seen, of.0, of.1, Some(asked)).await;
        let mut tx = self.database.workspace(request.workspace).await?;
        let (to, tree, note, disagreement) = match signed {
            Ok(None) => return Ok(None),
            Ok(Some((_, tree, note))) => (asked, tree, note, None),
            Err(e @ (read::Error::Head(_) | read::Error::Tree(super::tree::Error::Missing(_)))) => {
                // The history is not the one that was signed: no new signature, the old one shows it.
                let old = sqlx::query!(
                    "SELECT size, root, note FROM checkpoints WHERE workspace_id = $1 AND ledger_id = $2",
                    request.workspace.uuid(),
                    ledger.uuid()
                )
                .fetch_optional(&mut *tx)
                .await?;
                match old.map(|o| (o.size as u64, <[u8; 32]>::try_from(o.root), o.note)) {
                    Some((size, Ok(root), note))
                        if size >= request.from && SignedCheckpoint::parse(note.as_bytes()).is_ok() =>
                    {
                        (size, SignedTree { size, root }, note, Some(e.to_string()))
                    }
                    _ => return Err(e),
                }
            }
            Err(e) => return Err(e),
        };
        request.openings &= disagreement.is_none();
        let before = Range::prefix(request.from);
        let stored = Stored::read(&mut tx, request.workspace, ledger, [before]).await?;
        let left =
            before.nodes().map(|node| stored.find(node).map(|h| hex(&h)).unwrap_or_default()).collect();
        Ok(Some(Prepared { request, ledger, to, tree, note, left, disagreement }))
    }

    /// Writes the export to a file (or anything that can seek), telling `progress` how many entries are done.
    ///
    /// # Errors
    /// If the database or the file fails; what was written then is not an export.
    pub async fn write<W: Write + Seek + Send>(
        &self,
        prepared: &Prepared,
        out: W,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<W, io::Error> {
        let mut zip = ZipWriter::new(out);
        self.fill(&mut zip, prepared, &mut Flush::Progress(Box::new(progress))).await?;
        zip.finish().map_err(io::Error::other)
    }

    /// Streams the export. A fault in the middle ends the stream with an error, so that it is not taken for whole.
    pub fn stream(
        self,
        prepared: Prepared,
    ) -> impl Stream<Item = Result<Vec<u8>, io::Error>> + Send + 'static {
        let (chunks, receiver) = mpsc::channel::<Result<Vec<u8>, io::Error>>(4);
        tokio::spawn(async move {
            let buffer = Buffer::default();
            let mut zip = ZipWriter::new_stream(buffer.clone());
            let mut flush = Flush::Chunks(buffer.clone(), chunks.clone());
            let sent = self.fill(&mut zip, &prepared, &mut flush).await;
            let end = match sent {
                Ok(()) => zip.finish().map(|_| buffer.take()).map_err(io::Error::other),
                Err(e) => Err(e),
            };
            if let Err(e) = &end {
                tracing::warn!(error = %e, "an export ended early");
            }
            // The reader may have gone.
            let _ = chunks.send(end).await;
        });
        futures_util::stream::unfold(receiver, |mut receiver| async move {
            let chunk = receiver.recv().await?;
            Some((chunk, receiver))
        })
    }

    async fn fill<W: Write + Seek + Send>(
        &self,
        zip: &mut ZipWriter<W>,
        prepared: &Prepared,
        flush: &mut Flush,
    ) -> io::Result<()> {
        let request = &prepared.request;
        let lines = prepared.to - request.from;
        // An entry has at most 65,535 bytes: only a ledger of over 65,536 entries may need zip64.
        let options = |might_be: u64| {
            SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .large_file(might_be >= ZIP32)
        };
        zip.start_file("entries.jsonl", options(lines.saturating_mul(65_536))).map_err(io::Error::other)?;
        let mut count = 0_u64;
        let mut at = request.from as i64;
        loop {
            let mut tx = self.database.workspace(request.workspace).await.map_err(io::Error::other)?;
            let rows = sqlx::query!(
                "SELECT seq, leaf, CASE WHEN $5::text[] IS NULL OR type = ANY ($5) THEN entry END AS entry
                   FROM entries WHERE workspace_id = $1 AND ledger_id = $2 AND seq >= $3 AND seq < $4
                  ORDER BY seq LIMIT $6",
                request.workspace.uuid(),
                prepared.ledger.uuid(),
                at,
                prepared.to as i64,
                request.types.as_deref() as Option<&[String]>,
                PAGE
            )
            .fetch_all(&mut *tx)
            .await
            .map_err(io::Error::other)?;
            drop(tx);
            let Some(last) = rows.last() else { break };
            at = last.seq + 1;
            let mut page = String::new();
            for row in rows {
                match row.entry {
                    Some(entry) => {
                        count += 1;
                        page.push_str(&entry);
                    }
                    None => {
                        page.push_str(&format!("{{\"leaf\":\"{}\",\"seq\":{}}}", hex(&row.leaf), row.seq))
                    }
                }
                page.push('\n');
            }
            zip.write_all(page.as_bytes())?;
            flush.after(at as u64 - request.from).await?;
        }
        if request.openings {
            self.fill_openings(zip, prepared, options(u64::MAX), flush).await?;
        }
        zip.start_file("checkpoint", options(0)).map_err(io::Error::other)?;
        zip.write_all(prepared.note.as_bytes())?;
        let ring = self.keyring.current();
        zip.start_file("keys.json", options(0)).map_err(io::Error::other)?;
        zip.write_all(ring.manifest().as_bytes())?;
        zip.start_file("manifest.json", options(0)).map_err(io::Error::other)?;
        let text = |s: &str| Value::String(s.to_owned());
        let list = |items: &[String]| Value::Array(items.iter().map(|s| text(s)).collect());
        let mut manifest = Object::default();
        manifest.insert("v".into(), Value::Int(1));
        manifest.insert("instance".into(), text(ring.instance()));
        manifest.insert("ledger".into(), text(&prepared.ledger.to_string()));
        manifest.insert("from".into(), Value::Int(request.from as i64));
        manifest.insert("to".into(), Value::Int(prepared.to as i64));
        manifest.insert("root".into(), text(&hex(&prepared.tree.root)));
        manifest.insert("count".into(), Value::Int(count as i64));
        manifest.insert("filter".into(), request.types.as_ref().map_or(Value::Null, |t| list(t)));
        manifest.insert("left".into(), list(&prepared.left));
        manifest.insert("exported_at".into(), text(Timestamp::now().as_str()));
        manifest.insert("exported_by".into(), text(&request.exported_by));
        manifest.insert("key_id".into(), text(&hex(&ring.receipt_key_id())));
        let unsigned = Value::Object(manifest.clone()).canonical();
        let signature = ring.sign_export(unsigned.as_bytes()).map_err(io::Error::other)?;
        manifest.insert("signature".into(), text(&base64(&signature)));
        zip.write_all(Value::Object(manifest).canonical().as_bytes())?;
        flush.after(lines).await
    }

    async fn fill_openings<W: Write + Seek + Send>(
        &self,
        zip: &mut ZipWriter<W>,
        prepared: &Prepared,
        options: SimpleFileOptions,
        flush: &mut Flush,
    ) -> io::Result<()> {
        const OPENINGS: i64 = 64;
        let request = &prepared.request;
        let data_key = self.data_keys.get(request.workspace).await.map_err(io::Error::other)?;
        zip.start_file("openings.jsonl", options).map_err(io::Error::other)?;
        let (mut seq, mut name) = (request.from as i64, String::new());
        loop {
            let mut tx = self.database.workspace(request.workspace).await.map_err(io::Error::other)?;
            let rows = sqlx::query!(
                "SELECT o.seq, o.name, o.sealed
                   FROM openings o JOIN entries e USING (workspace_id, ledger_id, seq)
                  WHERE o.workspace_id = $1 AND o.ledger_id = $2 AND (o.seq, o.name) > ($3, $4) AND o.seq < $5
                    AND ($6::text[] IS NULL OR e.type = ANY ($6))
                  ORDER BY o.seq, o.name LIMIT $7",
                request.workspace.uuid(),
                prepared.ledger.uuid(),
                seq,
                name,
                prepared.to as i64,
                request.types.as_deref() as Option<&[String]>,
                OPENINGS
            )
            .fetch_all(&mut *tx)
            .await
            .map_err(io::Error::other)?;
            drop(tx);
            let Some(last) = rows.last() else { break };
            (seq, name) = (last.seq, last.name.clone());
            for row in rows {
                let opened = open_opening(&data_key, prepared.ledger, row.seq as u64, &row.name, &row.sealed)
                    .map_err(|e| io::Error::other(format!("opening {}/{}: {e}", row.seq, row.name)))?;
                let opened = std::str::from_utf8(&opened).map_err(io::Error::other)?;
                // Canonical `{"salt":"<44>","value":…}`, as it was sealed.
                let salt = opened.get(9..53).ok_or_else(|| io::Error::other("an opening is damaged"))?;
                let value = opened.get(63..).ok_or_else(|| io::Error::other("an opening is damaged"))?;
                let line = format!(
                    "{{\"name\":\"{}\",\"salt\":\"{salt}\",\"seq\":{},\"value\":{value}\n",
                    row.name, row.seq
                );
                zip.write_all(line.as_bytes())?;
            }
            flush.after(prepared.to - request.from).await?;
        }
        Ok(())
    }
}

/// What happens between pages.
enum Flush {
    /// Somebody is told how many entries are done.
    Progress(Box<dyn FnMut(u64) + Send>),
    /// What was written goes to the reader, at the reader's pace.
    Chunks(Buffer, mpsc::Sender<Result<Vec<u8>, io::Error>>),
}

impl Flush {
    async fn after(&mut self, done: u64) -> io::Result<()> {
        match self {
            Self::Progress(tell) => {
                tell(done);
                Ok(())
            }
            Self::Chunks(buffer, chunks) => {
                chunks.send(Ok(buffer.take())).await.map_err(|_| io::Error::other("the reader has gone"))
            }
        }
    }
}

/// A buffer that a zip writer fills and a stream empties. Locked by one of them at a time.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Cursor<Vec<u8>>>>);

impl Buffer {
    fn take(&self) -> Vec<u8> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.set_position(0);
        std::mem::take(inner.get_mut())
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was taken away.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// Which ledger.
    pub ledger: LedgerId,
    /// The first seq.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Only these types.
    pub types: Option<&'a [String]>,
    /// Whether sealed values were opened.
    pub openings: bool,
    /// The form, where it is not the export that proves itself.
    pub format: Option<&'static str>,
    /// What was searched for, where only that was taken.
    pub search: Option<&'a Value>,
    /// Whether the history is the one that was signed, as far as is known.
    pub as_signed: bool,
}

impl Of<'_> {
    /// All of a ledger's entries from `from` to before `to`, sealed values closed.
    #[must_use]
    pub const fn all(ledger: LedgerId, from: u64, to: u64) -> Self {
        Self { ledger, from, to, types: None, openings: false, format: None, search: None, as_signed: true }
    }
}

/// Records that entries were taken away, before the first byte leaves: in their own ledger, or, where its workspace has
/// ended and nothing can be added, in the instance's.
///
/// # Errors
/// If the database does not confirm.
pub async fn record(
    writer: &super::Writer,
    act: &crate::audit::Act,
    workspace: WorkspaceId,
    of: Of<'_>,
) -> Result<(), super::append::Error> {
    match record_in(writer, act, workspace, workspace, of).await {
        Err(super::append::Error::NoWorkspace(_)) => {
            let instance = crate::instance::Instance::read(writer.database()).await?;
            record_in(writer, act, instance.map_or(workspace, |i| i.workspace), workspace, of).await
        }
        recorded => recorded,
    }
}

/// Records in the ledger of `into` that entries of `workspace` were taken away.
async fn record_in(
    writer: &super::Writer,
    act: &crate::audit::Act,
    into: WorkspaceId,
    workspace: WorkspaceId,
    of: Of<'_>,
) -> Result<(), super::append::Error> {
    let int = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let list = |types: &[String]| Value::Array(types.iter().cloned().map(Value::String).collect());
    let mut record = act
        .of(crate::audit::Action::LedgerExported)
        .target("workspace", workspace)
        .detail("ledger", Value::String(of.ledger.to_string()))
        .detail("from", int(of.from))
        .detail("to", int(of.to))
        .detail("types", of.types.map_or(Value::Null, list))
        .detail("openings", Value::Bool(of.openings));
    if let Some(format) = of.format {
        record = record.detail("format", Value::String(format.into()));
    }
    if let Some(search) = of.search {
        record = record.detail("search", search.clone());
    }
    if !of.as_signed {
        record = record.detail("as_signed", Value::Bool(false));
    }
    let draft = record.draft()?;
    let mut locked = writer.lock(into).await?;
    locked.append(&[draft]).await?;
    locked.commit().await
}

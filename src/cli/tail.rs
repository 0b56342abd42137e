//! `tail`: what happens, as it happens.
//!
//! A request waits at the instance until there is an entry after the last one that was printed. Where the instance is
//! away, it is asked again for the same; so nothing is printed twice and nothing is left out, however often it goes.

use super::remote::{Connection, Error, Remote};
use super::terminal::{self, Colour, Screen, clean, width};
use super::words::{self, Told};
use super::{show, status};
use crate::config::Settings;
use anyhow::Result;
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long a request waits for news. The instance allows 30 seconds.
const WAIT_S: u32 = 25;
/// Entries a page.
const PAGE: u64 = 500;
/// The first pause before an instance that is away is asked again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often to look whether anybody still reads.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub struct TailArgs {
    #[command(flatten)]
    connection: Connection,
    /// How many entries to begin with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    last: u64,
    /// Only about these apps: bundle id, package name, or what the store calls it
    #[arg(long = "app", value_name = "APP")]
    apps: Vec<String>,
    /// Only entries of these types: whole, or a beginning that ends in `.*` (`store.*`)
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// The entries themselves, one a line
    #[arg(long)]
    json: bool,
}

/// A page of entries.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    pub(super) next: Option<u64>,
    pub(super) size: u64,
}

/// Follows the ledger until nobody listens any more.
///
/// # Errors
/// If the instance cannot be reached at first, or refuses.
pub async fn run(settings: &Settings, args: TailArgs) -> Result<u8> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = follow(settings, &args) => ended?,
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
        () = unread() => {}
    }
    Ok(0)
}

/// Waits until nobody reads standard output any more: it is a pipe whose other end is closed.
async fn unread() {
    loop {
        let out = io::stdout();
        let mut watched = [PollFd::new(out.as_fd(), PollFlags::empty())];
        let gone = poll(&mut watched, PollTimeout::ZERO).is_ok_and(|n| n > 0)
            && watched[0].revents().is_some_and(|r| r.intersects(PollFlags::POLLERR | PollFlags::POLLHUP));
        if gone {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Prints entries until printing is in vain.
async fn follow(settings: &Settings, args: &TailArgs) -> Result<()> {
    let remote = Remote::new(&args.connection, settings)?;
    let workspace = remote.workspace().await?;
    let path = format!("/v1/workspaces/{workspace}/entries");
    let apps = ids(&remote, &workspace, &args.apps).await?.join(",");
    let types = args.types.join(",");
    let mut filter: Vec<(&str, &str)> = Vec::new();
    if !types.is_empty() {
        filter.push(("type", &types));
    }
    if !apps.is_empty() {
        filter.push(("app", &apps));
    }
    let names = Names { remote: &remote, workspace: &workspace, known: HashMap::new() };
    let mut printer = Printer { screen: Screen::stdout(), json: args.json, widths: [0; 3], names };
    let (entries, mut from) = last(&remote, &path, &filter, args.last).await?;
    if !printer.print(&entries).await? {
        return Ok(());
    }
    let (mut pause, mut away) = (PAUSE.0, false);
    let wait = WAIT_S.to_string();
    loop {
        let (seq, limit) = (from.to_string(), PAGE.to_string());
        let mut query = filter.clone();
        query.extend([("from", seq.as_str()), ("limit", limit.as_str()), ("wait", wait.as_str())]);
        let page: Page = match remote.get(&path, &query, Duration::from_secs(WAIT_S.into())).await {
            Ok(page) => page,
            Err(e) if e.passes() => {
                if !away {
                    show::note(format!("statusledger: {e}; trying again"));
                    away = true;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        if away {
            show::note(format!("statusledger: back, and going on after entry {}", from.saturating_sub(1)));
        }
        (pause, away) = (PAUSE.0, false);
        if !printer.print(&page.items).await? {
            return Ok(());
        }
        from = page.next.unwrap_or(page.size).max(from);
    }
}

/// The last `count` entries, oldest first, and where those begin that come after them.
async fn last(
    remote: &Remote,
    path: &str,
    filter: &[(&str, &str)],
    count: u64,
) -> Result<(Vec<Value>, u64), Error> {
    let (mut entries, mut from, mut end) = (Vec::new(), None::<u64>, None);
    loop {
        let missing = count - entries.len() as u64;
        let (limit, at) = (missing.clamp(1, 1000).to_string(), from.map(|from| from.to_string()));
        let mut query = filter.to_vec();
        query.extend([("reverse", "true"), ("limit", &limit)]);
        query.extend(at.as_ref().map(|at| ("from", at.as_str())));
        let page: Page = remote.get(path, &query, Duration::ZERO).await?;
        let end = *end.get_or_insert(page.size);
        entries.extend(page.items.into_iter().take(usize::try_from(missing).unwrap_or(usize::MAX)));
        from = page.next;
        if from.is_none() || entries.len() as u64 >= count {
            entries.reverse();
            return Ok((entries, end));
        }
    }
}

/// The ids of the apps that `patterns` name. One that names none is taken for the id of an app that is still to come.
async fn ids(remote: &Remote, workspace: &str, patterns: &[String]) -> Result<Vec<String>, Error> {
    let mut ids = Vec::new();
    for pattern in patterns {
        let found = status::ask(remote, workspace, std::slice::from_ref(pattern), false).await?.apps;
        if found.is_empty() {
            show::note(format!("statusledger: no app is called \"{}\" yet", clean(pattern)));
            ids.push(pattern.clone());
        }
        ids.extend(found.into_iter().map(|found| found.app));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// What sources and destinations are called, as far as whoever asks may know.
struct Names<'a> {
    remote: &'a Remote,
    workspace: &'a str,
    known: HashMap<String, String>,
}

impl Names<'_> {
    /// The name behind an id, or the id where there is none to be had. The lists are asked for when an id comes that
    /// was not there before.
    async fn of(&mut self, id: &str) -> String {
        #[derive(Deserialize)]
        struct Named {
            id: String,
            name: String,
        }
        #[derive(Deserialize)]
        struct List {
            items: Vec<Named>,
        }
        let list = match id.split_once('_') {
            Some(("src", _)) => "sources",
            Some(("ep", _)) => "destinations",
            _ => return id.to_owned(),
        };
        if !self.known.contains_key(id) {
            let path = format!("/v1/workspaces/{}/{list}", self.workspace);
            if let Ok(list) = self.remote.get::<List>(&path, &[], Duration::ZERO).await {
                self.known.extend(list.items.into_iter().map(|named| (named.id, named.name)));
            }
            // It was removed, or the token may not see the list: the same would be asked for each time.
            self.known.entry(id.to_owned()).or_insert_with(|| id.to_owned());
        }
        self.known.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }
}

/// An entry in columns.
struct Row {
    time: String,
    cells: [(String, Colour); 3],
    via: String,
}

/// Prints entries, in columns that grow with what has come.
struct Printer<'a> {
    screen: Screen,
    json: bool,
    widths: [usize; 3],
    names: Names<'a>,
}

impl Printer<'_> {
    /// Prints `entries`, all of which are measured first; false where nobody reads any more.
    async fn print(&mut self, entries: &[Value]) -> Result<bool> {
        if self.json {
            let lines: Result<Vec<String>, _> = entries.iter().map(serde_json::to_string).collect();
            return Ok(terminal::print(lines?.iter().map(|line| terminal::json(line)))?);
        }
        let mut rows = Vec::with_capacity(entries.len());
        for told in entries.iter().filter_map(Told::of) {
            let row = self.row(&told).await;
            for ((text, _), most) in row.cells.iter().zip(&mut self.widths) {
                *most = width(text).max(*most);
            }
            rows.push(row);
        }
        Ok(terminal::print(rows.iter().map(|row| self.line(row)))?)
    }

    /// An app's entry names the app, another the source or the destination that it is about.
    async fn row(&mut self, told: &Told) -> Row {
        let about = match (&told.app, told.about()) {
            (Some(app), _) => app.clone(),
            (None, Some(id)) => self.names.of(id).await,
            (None, None) => "-".into(),
        };
        let (change, colour) = told.change();
        let cells = [(about, Colour::Plain), (told.subject(), Colour::Plain), (change, colour)];
        Row {
            time: clean(&words::second(&told.timestamp)).into_owned(),
            cells: cells.map(|(text, colour)| (clean(&text).into_owned(), colour)),
            via: clean(told.via()).into_owned(),
        }
    }

    fn line(&self, row: &Row) -> String {
        let mut line = self.screen.paint(Colour::Dim, &row.time);
        for ((text, colour), most) in row.cells.iter().zip(&self.widths) {
            line.push_str("  ");
            line.push_str(&self.screen.paint(*colour, text));
            line.extend(std::iter::repeat_n(' ', most - width(text)));
        }
        line.push_str("  ");
        line.push_str(&self.screen.paint(Colour::Dim, &row.via));
        line.trim_end().to_owned()
    }
}

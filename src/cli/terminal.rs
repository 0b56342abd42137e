//! What reaches a terminal: clean text, columns, colours.
//!
//! What a store says of an app was written by somebody else. A terminal obeys some of the characters that it is sent,
//! so everything from outside goes through [`clean`], or, as JSON, through [`json`].

use console::{Term, measure_text_width};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// Whether a terminal would do something with `c` other than show it: controls (C0, C1, DEL), what reorders or hides
/// text, line separators, tags.
const fn is_unsafe(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// `text` with U+FFFD in the place of every character that a terminal would obey.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c }).collect())
}

/// JSON text with every such character escaped, and nothing else changed: the same value, fit for a terminal. It may
/// have line breaks between values, which stay.
#[must_use]
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) && c != '\n' {
            // Outside of strings JSON has no such character, and inside of them none below U+0020.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Columns that `text` takes.
#[must_use]
pub fn width(text: &str) -> usize {
    measure_text_width(text)
}

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// As the terminal has it.
    Plain,
    /// Good.
    Green,
    /// In motion.
    Yellow,
    /// Bad.
    Red,
    /// Of less interest.
    Dim,
}

impl Colour {
    /// `text` in it.
    #[must_use]
    pub fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The colour of a state, by its words: the stores' names for them are many, and new ones will come.
    #[must_use]
    pub fn of_state(state: &str) -> Self {
        let state = state.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|w| state.contains(w));
        if has(&[
            "REJECT",
            "INVALID",
            "FAIL",
            "EXCEPTION",
            "UNRESOLVED",
            "NOT_APPROVED",
            "REMOVED",
            "HALTED",
            "REFUSED",
            "SUSPECT",
            "MISSING",
            "TOO_SMALL",
            "SKEW",
            "ACTION_NEEDED",
        ]) {
            Self::Red
        } else if has(&["REPLACED", "EXPIRED", "DRAFT", "PREPARE", "NOT_APPLICABLE", "INACTIVE", "ARCHIVED"])
        {
            Self::Dim
        } else if has(&["REVIEW", "PENDING", "PROCESSING", "PROGRESS", "PAUSED", "DEGRADED", "NOT_PUBLISHED"])
            || matches!(state.as_str(), "ACTIVE" | "COMPLETING" | "CANCELING")
        {
            Self::Yellow
        } else if has(&[
            "READY_FOR_DISTRIBUTION",
            "READY_FOR_SALE",
            "PUBLISHED",
            "APPROVED",
            "COMPLETE",
            "VALID",
        ]) || matches!(state.as_str(), "OK" | "ACCEPTED" | "AVAILABLE")
        {
            Self::Green
        } else {
            Self::Plain
        }
    }
}

/// Standard output, and what it can show.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Columns; none where lines may be of any length.
    pub columns: Option<usize>,
    /// Whether colours are wanted.
    pub colours: bool,
}

impl Screen {
    /// Standard output: colours on a terminal only, and not where `NO_COLOR` says something; columns as `COLUMNS` or
    /// the terminal says.
    #[must_use]
    pub fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let says = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let told = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).filter(|c| *c > 0);
        let columns = told.or_else(|| {
            let (_, columns) = Term::stdout().size_checked().filter(|_| terminal)?;
            (columns > 0).then_some(columns.into())
        });
        Self { columns, colours: terminal && !dumb && !says("NO_COLOR") }
    }

    /// `text` in `colour`, where colours are wanted.
    #[must_use]
    pub fn paint(self, colour: Colour, text: &str) -> String {
        if self.colours { colour.paint(text) } else { text.to_owned() }
    }
}

/// How a column yields when the lines are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yield {
    /// Not at all.
    Never,
    /// It loses its end.
    End,
    /// It loses its beginning (what tells bundle ids apart is at their end).
    Beginning,
    /// First of all: it goes as a whole.
    Whole,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Yield)>,
    rows: Vec<Vec<(String, Colour)>>,
}

/// Columns between two columns.
const GAP: usize = 2;
/// What a column keeps when it yields.
const LEAST: usize = 8;

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(columns: &[(&'static str, Yield)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; each cell is cleaned.
    pub fn row(&mut self, cells: Vec<(String, Colour)>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells.into_iter().map(|(text, colour)| (clean(&text).into_owned(), colour)).collect());
    }

    /// Whether it has no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, without line breaks. A column that is empty in each row is left out.
    #[must_use]
    pub fn lines(&self, screen: Screen) -> Vec<String> {
        let natural = |i: usize| {
            let cells = self.rows.iter().map(|row| width(&row[i].0)).max().unwrap_or(0);
            if cells == 0 { 0 } else { cells.max(width(self.columns[i].0)) }
        };
        let mut widths: Vec<usize> = (0..self.columns.len()).map(natural).collect();
        let total = |widths: &[usize]| {
            let shown = widths.iter().filter(|w| **w > 0);
            shown.clone().sum::<usize>() + GAP * shown.count().saturating_sub(1)
        };
        if let Some(most) = screen.columns {
            for (i, (_, how)) in self.columns.iter().enumerate() {
                if *how == Yield::Whole && total(&widths) > most {
                    widths[i] = 0;
                }
            }
            while total(&widths) > most {
                let yields = |i: &usize| {
                    matches!(self.columns[*i].1, Yield::End | Yield::Beginning) && widths[*i] > LEAST
                };
                let Some(widest) = (0..widths.len()).filter(yields).max_by_key(|i| widths[*i]) else { break };
                widths[widest] -= 1;
            }
        }
        let head = self.columns.iter().map(|(name, _)| ((*name).to_owned(), Colour::Dim)).collect();
        let line = |row: &Vec<(String, Colour)>| {
            let mut line = String::new();
            let mut blank = 0;
            for ((cell, colour), (w, (_, how))) in row.iter().zip(widths.iter().zip(&self.columns)) {
                if *w == 0 {
                    continue;
                }
                let cell = cut(cell, *w, *how);
                line.extend(std::iter::repeat_n(' ', blank));
                line.push_str(&screen.paint(*colour, &cell));
                blank = w - width(&cell) + GAP;
            }
            line.trim_end().to_owned()
        };
        std::iter::once(&head).chain(&self.rows).map(line).collect()
    }
}

/// `text` in no more than `most` columns.
fn cut(text: &str, most: usize, how: Yield) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut kept = String::new();
    if how == Yield::Beginning {
        let start = text.char_indices().map(|(i, _)| i).find(|i| width(&text[*i..]) < most);
        kept.push('…');
        kept.push_str(&text[start.unwrap_or(text.len())..]);
    } else {
        for c in text.chars() {
            kept.push(c);
            if width(&kept) >= most {
                kept.pop();
                break;
            }
        }
        kept.push('…');
    }
    kept
}

/// `text` in lines of no more than `columns`, broken between words, each behind `indent`.
#[must_use]
pub fn wrap(text: &str, columns: Option<usize>, indent: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in clean(text).split(' ') {
        match lines.last_mut() {
            Some(line) if columns.is_none_or(|most| width(line) + 1 + width(word) <= most) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines
}

/// Standard output, line by line; false where nobody reads any more (a closed pipe), which is no fault.
///
/// # Errors
/// If it cannot be written to for another reason.
pub fn print(lines: impl IntoIterator<Item = impl AsRef<str>>) -> io::Result<bool> {
    let write = || {
        let mut out = io::stdout().lock();
        for line in lines {
            writeln!(out, "{}", line.as_ref())?;
        }
        out.flush()
    };
    match write() {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let hostile = "a\u{1b}[31mb\u{7}c\nd\u{9b}2Je\u{202e}f\u{200b}g\u{7f}";
        assert_eq!(clean(hostile), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d\u{fffd}2Je\u{fffd}f\u{fffd}g\u{fffd}");
        assert!(matches!(clean("Notizen für 東京 👩\u{200d}💻"), Cow::Borrowed(_)));
        let value = serde_json::json!({ "name": hostile, "tag": "\u{e0041}" });
        let text = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.contains(|c| is_unsafe(c) && c != '\n'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    fn table() -> Table {
        let mut table = Table::new(&[
            ("APP", Yield::Beginning),
            ("NAME", Yield::Whole),
            ("EMPTY", Yield::Never),
            ("STATE", Yield::End),
            ("SINCE", Yield::Never),
        ]);
        let row = |app: &str, name: &str, state: &str| {
            let cells = [app, name, "", state, "3 h ago"].map(|c| (c.to_owned(), Colour::Plain));
            cells.to_vec()
        };
        table.row(row("com.example.weather", "天気予報", "WAITING_FOR_REVIEW"));
        table.row(row("com.example.notes", "Notes", "REJECTED"));
        table
    }

    #[test]
    fn columns_are_as_wide_as_what_is_seen() {
        let wide = Screen { columns: None, colours: false };
        assert_eq!(
            table().lines(wide),
            [
                "APP                  NAME      STATE               SINCE",
                "com.example.weather  天気予報  WAITING_FOR_REVIEW  3 h ago",
                "com.example.notes    Notes     REJECTED            3 h ago",
            ]
        );
    }

    #[test]
    fn columns_yield_on_a_narrow_terminal() {
        for columns in [58, 57, 47, 40, 30, 27] {
            let lines = table().lines(Screen { columns: Some(columns), colours: false });
            assert!(lines.iter().all(|line| width(line) <= columns), "{columns}: {lines:#?}");
            assert_eq!(lines[0].contains("NAME"), columns == 58, "{columns}: {lines:#?}");
        }
        let lines = table().lines(Screen { columns: Some(40), colours: false });
        assert_eq!(lines[1], "…xample.weather  WAITING_FOR_R…  3 h ago");
    }

    #[test]
    fn sentences_are_broken_between_words() {
        let text = "Wait some minutes before you make a new one.";
        assert_eq!(wrap(text, None, "    "), [format!("    {text}")]);
        let lines = wrap(text, Some(24), "    ");
        assert_eq!(lines, ["    Wait some minutes", "    before you make a", "    new one."]);
        assert_eq!(wrap("averyveryverylongword x", Some(8), "  "), ["  averyveryverylongword", "  x"]);
    }

    #[test]
    fn colours_take_no_columns() {
        let screen = Screen { columns: None, colours: true };
        let mut table = Table::new(&[("STATE", Yield::End), ("SINCE", Yield::Never)]);
        table.row(vec![("REJECTED".into(), Colour::of_state("REJECTED")), ("now".into(), Colour::Plain)]);
        assert_eq!(table.lines(screen)[1], "\u{1b}[31mREJECTED\u{1b}[0m  now");
    }

    #[test]
    fn states_have_the_colour_of_what_they_mean() {
        for (state, colour) in [
            ("READY_FOR_DISTRIBUTION", Colour::Green),
            ("PUBLISHED", Colour::Green),
            ("ok", Colour::Green),
            ("IN_REVIEW", Colour::Yellow),
            ("APPROVED_NOT_PUBLISHED", Colour::Yellow),
            ("inProgress", Colour::Yellow),
            ("NOT_APPROVED", Colour::Red),
            ("DEVELOPER_REJECTED", Colour::Red),
            ("halted", Colour::Red),
            ("refused", Colour::Red),
            ("PREPARE_FOR_SUBMISSION", Colour::Dim),
            ("REPLACED_WITH_NEW_VERSION", Colour::Dim),
            ("SOMETHING_ELSE", Colour::Plain),
        ] {
            assert_eq!(Colour::of_state(state), colour, "{state}");
        }
    }
}

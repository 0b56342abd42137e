//! Where in the file each value stands, so that what is wrong with one is said at its own line and column.

use anyhow::Result;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Line and column, from 1, of a byte of `text`.
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The places of one source or destination.
#[derive(Clone, Debug)]
pub struct Spots {
    name: String,
    /// By the member's path: `url`, `filter.types`, `filter.types[0]`.
    members: HashMap<String, String>,
}

impl Spots {
    /// Those of the `index`th item of `list` (`source`, `destination`), whose name stands at `name`.
    ///
    /// # Errors
    /// If it is no TOML.
    pub fn new(
        file: &Path,
        text: &str,
        list: &str,
        index: usize,
        name: Range<usize>,
    ) -> Result<Self, toml::de::Error> {
        let place = |at: usize| {
            let (line, column) = line_and_column(text, at);
            format!("{}:{line}:{column}", file.display())
        };
        let mut members = HashMap::new();
        let table = DeTable::parse(text)?;
        let items = table.get_ref().get(list).and_then(|items| items.get_ref().get(index));
        if let Some(DeValue::Table(item)) = items.map(Spanned::get_ref) {
            walk("", item, &mut |path, at| {
                members.insert(path, place(at));
            });
        }
        Ok(Self { name: place(name.start), members })
    }

    /// Where its name stands: that is where something is missing.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Where that member's value stands; where it has none, its name.
    #[must_use]
    pub fn of(&self, member: &str) -> String {
        self.members.get(member).unwrap_or(&self.name).clone()
    }

    /// Where the first of these that it has stands.
    #[must_use]
    pub fn first_of(&self, members: &[&str]) -> String {
        let found = members.iter().find_map(|member| self.members.get(*member));
        found.unwrap_or(&self.name).clone()
    }
}

/// Tells `found` of each value in `table`: its path and where it begins.
fn walk(path: &str, table: &DeTable<'_>, found: &mut impl FnMut(String, usize)) {
    for (name, value) in table {
        let path = format!("{path}{}", name.get_ref());
        found(path.clone(), value.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => walk(&format!("{path}."), inner, found),
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    found(format!("{path}[{i}]"), item.span().start);
                }
            }
            _ => {}
        }
    }
}

//! What a benchmark found: lines and tables for people, JSON for programs.

use std::path::Path;

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::machine::Machine;

/// Everything that one run says.
pub struct Report {
    command: &'static str,
    machine: Machine,
    conditions: Vec<String>,
    sections: Vec<Section>,
}

/// One table.
pub struct Section {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    values: Vec<Value>,
}

impl Report {
    /// A report of a run on this machine.
    pub fn new(command: &'static str) -> Self {
        Self {
            command,
            machine: Machine::here(),
            conditions: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// States how it was measured.
    pub fn condition(&mut self, line: impl Into<String>) {
        self.conditions.push(line.into());
    }

    /// Adds a finished table.
    pub fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// Prints everything to stdout, and writes it to `json` if there is one.
    pub fn publish(&self, json: Option<&Path>) -> anyhow::Result<()> {
        println!("countersign bench {}", self.command);
        println!("{}", self.machine.line());
        for line in &self.conditions {
            println!("{line}");
        }
        for section in &self.sections {
            println!("\n{}", section.title);
            println!("{}", section.table());
        }
        let Some(path) = json else { return Ok(()) };
        let sections = self.sections.iter().map(Section::json);
        let all = json!({
            "command": self.command,
            "machine": self.machine.json(),
            "conditions": self.conditions,
            "tables": sections.collect::<Vec<_>>(),
        });
        let text = serde_json::to_string_pretty(&all).expect("strings and numbers have JSON");
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }
}

impl Section {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.to_vec(),
            rows: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Adds a row as people read it, and as programs do.
    pub fn row(&mut self, cells: Vec<String>, value: Value) {
        self.rows.push(cells);
        self.values.push(value);
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table
            .load_style(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row);
        }
        table
    }

    fn json(&self) -> Value {
        json!({ "title": self.title, "rows": self.values })
    }
}

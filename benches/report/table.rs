use std::fmt;

/// One row: what was measured, its unit, and the values of the runs.
struct Row {
    what: String,
    unit: &'static str,
    values: Vec<f64>,
    beside: String,
}

#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a row; `beside` says what the machine does without us, or what the goal is.
    pub fn row(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        mut values: Vec<f64>,
        beside: impl Into<String>,
    ) {
        values.sort_by(f64::total_cmp);
        let row = Row { what: what.into(), unit, values, beside: beside.into() };
        eprintln!("{}: {}", row.what, row.summary());
        self.rows.push(row);
    }
}

impl Row {
    fn summary(&self) -> String {
        match (self.values.first(), self.values.get(self.values.len() / 2), self.values.last()) {
            (Some(least), Some(median), Some(most)) => {
                format!("{} / {} / {} {}", number(*least), number(*median), number(*most), self.unit)
            }
            _ => "not measured".to_owned(),
        }
    }
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| What | min / median / max | Beside it |\n|---|---|---|")?;
        for row in &self.rows {
            writeln!(f, "| {} | {} | {} |", row.what, row.summary(), row.beside)?;
        }
        Ok(())
    }
}

//! Statements that do not need each other's answers, sent to the database together: asking costs more than most of them do.
//!
//! Each stands for one row. What has no row is told by its place, so that whoever made the batch can say what that means.

use sqlx::AssertSqlSafe;

use super::row::Columns;
use super::{Engine, StoreError, Tx};

/// What stands in the place of a `$1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(Option<String>),
    Number(Option<i64>),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

/// Statements in order. On PostgreSQL none of them sees what another one writes; only keys and conditions of one row may matter.
#[derive(Debug, Default)]
pub struct Batch {
    statements: Vec<String>,
    values: Vec<Value>,
    /// What it means that a statement wrote nothing.
    missing: Vec<StoreError>,
}

impl Batch {
    /// Adds an INSERT or UPDATE of one row, with placeholders that begin at `$1`.
    pub(super) fn add<const N: usize>(&mut self, statement: &str, values: [Value; N], missing: StoreError) {
        let number = self.statements.len();
        let statement = shifted(statement, self.values.len());
        self.statements.push(format!("{statement} RETURNING CAST({number} AS BIGINT) AS done"));
        self.values.extend(values);
        self.missing.push(missing);
    }

    /// Runs all of it.
    ///
    /// # Errors
    /// For the first statement that wrote nothing, what that means; what the database can't do. Other statements may have been
    /// run: the transaction has to be undone.
    pub(super) async fn run(mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let missing = std::mem::take(&mut self.missing);
        let done = self.run_each(tx).await?;
        match missing.into_iter().zip(done).find(|(_, done)| !done) {
            None => Ok(()),
            Some((what, _)) => Err(what),
        }
    }

    /// Runs all of it and answers for each statement whether it wrote its row.
    ///
    /// # Errors
    /// When the database can't do it.
    pub(super) async fn run_each(self, tx: &mut Tx<'_>) -> Result<Vec<bool>, StoreError> {
        let mut done = vec![false; self.statements.len()];
        if done.is_empty() {
            return Ok(done);
        }
        let mut query = sqlx::query(AssertSqlSafe(self.text(tx.engine)));
        for value in self.values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Number(number) => query.bind(number),
            };
        }
        for row in query.fetch_all(tx.conn()).await? {
            let number: usize = row.number("done")?;
            if let Some(done) = done.get_mut(number) {
                *done = true;
            }
        }
        Ok(done)
    }

    /// SQLite takes statements one after the other, PostgreSQL as parts of one.
    fn text(&self, engine: Engine) -> String {
        match (engine, self.statements.as_slice()) {
            (_, [only]) => only.clone(),
            (Engine::Sqlite, all) => all.join("; "),
            (Engine::Postgres, all) => {
                let parts: Vec<String> = all.iter().enumerate().map(|(n, text)| format!("s{n} AS ({text})")).collect();
                let answers: Vec<String> = (0..all.len()).map(|n| format!("SELECT done FROM s{n}")).collect();
                format!("WITH {} {}", parts.join(", "), answers.join(" UNION ALL "))
            }
        }
    }
}

/// The statement with its placeholders counted on from those before it.
fn shifted(statement: &str, by: usize) -> String {
    let mut pieces = statement.split('$');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = piece.split_at(digits);
        let number = number.parse::<usize>().unwrap_or_default() + by;
        text.push('$');
        text.push_str(&number.to_string());
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Batch {
        let mut batch = Batch::default();
        batch.add("UPDATE a SET x = $1 WHERE y = $2", [1.into(), "b".into()], StoreError::Conflict("a"));
        batch.add("INSERT INTO b (x) VALUES ($1)", [None::<i64>.into()], StoreError::Conflict("b"));
        batch
    }

    #[test]
    fn placeholders_count_on() {
        assert_eq!(shifted("a = $1 AND b = $12, c", 10), "a = $11 AND b = $22, c");
        assert_eq!(two().values.len(), 3);
        assert_eq!(
            two().text(Engine::Sqlite),
            "UPDATE a SET x = $1 WHERE y = $2 RETURNING CAST(0 AS BIGINT) AS done; \
             INSERT INTO b (x) VALUES ($3) RETURNING CAST(1 AS BIGINT) AS done"
        );
    }

    #[test]
    fn postgresql_is_sent_one_statement() {
        assert_eq!(
            two().text(Engine::Postgres),
            "WITH s0 AS (UPDATE a SET x = $1 WHERE y = $2 RETURNING CAST(0 AS BIGINT) AS done), \
             s1 AS (INSERT INTO b (x) VALUES ($3) RETURNING CAST(1 AS BIGINT) AS done) \
             SELECT done FROM s0 UNION ALL SELECT done FROM s1"
        );
    }
}

//! Reading columns back into types. A column that does not fit its type is corruption, and says which.

use std::fmt::Display;
use std::str::FromStr;

use sqlx::any::AnyRow;
use sqlx::{Any, ColumnIndex, Decode, Row, Type};

use super::StoreError;
use crate::clock::Timestamp;
use crate::money::Sat;

pub(super) trait Columns {
    fn take<'r, T: Decode<'r, Any> + Type<Any>>(&'r self, column: &str) -> Result<T, StoreError>;

    fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T, StoreError>;

    fn parsed_opt<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>, StoreError>;

    fn time(&self, column: &str) -> Result<Timestamp, StoreError>;

    fn time_opt(&self, column: &str) -> Result<Option<Timestamp>, StoreError>;

    fn sat(&self, column: &str) -> Result<Sat, StoreError>;

    fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T, StoreError>;

    fn number_opt<T: TryFrom<i64>>(&self, column: &str) -> Result<Option<T>, StoreError>;
}

impl Columns for AnyRow {
    fn take<'r, T: Decode<'r, Any> + Type<Any>>(&'r self, column: &str) -> Result<T, StoreError>
    where
        for<'s> &'s str: ColumnIndex<Self>,
    {
        Ok(self.try_get(column)?)
    }

    fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T, StoreError> {
        parse(column, &self.take::<String>(column)?)
    }

    fn parsed_opt<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>, StoreError> {
        self.take::<Option<String>>(column)?.map(|text| parse(column, &text)).transpose()
    }

    fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::from_millis(self.take(column)?))
    }

    fn time_opt(&self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.take::<Option<i64>>(column)?.map(Timestamp::from_millis))
    }

    fn sat(&self, column: &str) -> Result<Sat, StoreError> {
        Sat::from_bigint(self.take(column)?).map_err(|_| corrupt(column))
    }

    fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T, StoreError> {
        T::try_from(self.take::<i64>(column)?).map_err(|_| corrupt(column))
    }

    fn number_opt<T: TryFrom<i64>>(&self, column: &str) -> Result<Option<T>, StoreError> {
        self.take::<Option<i64>>(column)?.map(|n| T::try_from(n).map_err(|_| corrupt(column))).transpose()
    }
}

pub(super) fn parse<T: FromStr<Err: Display>>(column: &str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|e| StoreError::Corrupt(format!("column {column}: {e}")))
}

fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column {column} is out of range"))
}

/// `$first, $first+1, …`: the placeholders of a list of so many values.
pub(super) fn placeholders(first: usize, count: usize) -> String {
    (first..first + count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}

/// Values that one statement may list. PostgreSQL takes 65,535, SQLite 32,766; this is below both.
pub(super) const LIST: usize = 500;

/// How many placeholders a list of so many values is given: a few sizes only, so that its statements are prepared once.
pub(super) const fn padded(count: usize) -> usize {
    match count {
        0..=1 => count,
        2..=8 => 8,
        9..=64 => 64,
        _ => LIST,
    }
}

/// The values of a list, the last of them again until the list is as long as its placeholders.
pub(super) fn padding<T>(values: &[T]) -> impl Iterator<Item = &T> {
    let more = padded(values.len()).saturating_sub(values.len());
    values.iter().chain(values.last().into_iter().cycle().take(more))
}

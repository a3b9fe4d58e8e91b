use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::{Failure, print};
use crate::http::openapi;

/// Print the OpenAPI description of the API
#[derive(Args)]
#[command(after_help = "Examples:\n  sluice openapi > sluice.json\n  sluice openapi --check")]
pub(super) struct Openapi {
    /// Compare it with the committed file; exit with 1 if they differ
    #[arg(long, conflicts_with = "write")]
    check: bool,
    /// Write the file
    #[arg(long)]
    write: bool,
    /// The file to compare with or to write
    #[arg(long, value_name = "FILE", default_value = "openapi/sluice.json")]
    file: PathBuf,
}

impl Openapi {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let served = openapi::document_json();
        let shown = self.file.display();
        if self.write {
            if let Some(folder) = self.file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&self.file, served)
                .map_err(|error| Failure::new(format!("can't write {shown}: {error}")))?;
            print(&format!("Wrote {shown}."))?;
            return Ok(ExitCode::SUCCESS);
        }
        if !self.check {
            print(served.trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        let committed = std::fs::read_to_string(&self.file)
            .map_err(|error| Failure::new(format!("can't read {shown}: {error}")))?;
        if committed == served {
            return Ok(ExitCode::SUCCESS);
        }
        let line = committed.lines().zip(served.lines()).take_while(|(old, new)| old == new).count() + 1;
        Err(Failure::new(format!(
            "{shown} is not what is served; they differ from line {line}. If the change is meant: make openapi"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(file: PathBuf, check: bool) -> Openapi {
        Openapi { check, write: !check, file }
    }

    #[test]
    fn a_change_of_the_api_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new").join("api.json");
        assert!(command(file.clone(), true).run().is_err(), "a missing file is a difference");
        assert!(command(file.clone(), false).run().is_ok());
        assert!(command(file.clone(), true).run().is_ok());
        std::fs::write(&file, "{}").unwrap();
        assert!(command(file, true).run().is_err());
    }
}

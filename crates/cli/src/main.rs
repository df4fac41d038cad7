//! The `trapline` command: arguments, reports, exit codes; nothing else.
//!
//! Everything it does is a call into `scenario`, `assembler`, `audit` or `stream`. A panic anywhere is a defect of ours and ends with exit code 3.

mod arguments;
mod asm;
mod bench;
mod boot;
mod checkpoint;
mod exit;
mod explain;
mod explore;
mod input;
mod inspect;
mod ledger;
mod migrate;
mod moves;
mod output;
mod run;
mod streams;
mod test;
mod words;

use arguments::{Arguments, Command, Format};
use clap::Parser;
use exit::Exit;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return match error.use_stderr() {
                true => Exit::Invalid.into(),
                false => Exit::Success.into(),
            };
        }
    };
    let output = Output::new(&arguments);
    let explains_a_file = matches!(&arguments.command, Command::Explain(explain) if explain.manual.is_none());
    if arguments.format == Format::Sarif && !explains_a_file {
        output.error("only `explain FILE` writes SARIF");
        return Exit::Invalid.into();
    }
    let outcome = std::panic::catch_unwind(|| match &arguments.command {
        Command::Run(run) => run::run(run, &output),
        Command::Test(test) => test::test(test, &output),
        Command::Boot(boot) => boot::boot(boot, &output),
        Command::Migrate(options) => migrate::migrate(options, &output),
        Command::Checkpoint(options) => checkpoint::checkpoint(options, &output),
        Command::Restore(options) => checkpoint::restore(options, &output),
        Command::Inspect(options) => inspect::inspect(options, &output),
        Command::Diff(options) => inspect::diff(options, &output),
        Command::Asm(asm) => asm::asm(asm, &output),
        Command::Bench(bench) => bench::bench(bench, &output),
        Command::Explore(options) => explore::explore(options, &output),
        Command::Explain(options) => explain::explain(options, &output),
        Command::Ledger(options) => ledger::ledger(options, &output),
        Command::Schema(options) => {
            output.print(&if options.reference { scenario::schema::reference() } else { schema() });
            Exit::Success
        }
    });
    match outcome {
        Ok(exit) => match output::failure() {
            Some(error) => {
                output.error(format_args!("cannot write the standard output: {error}"));
                Exit::Invalid.into()
            }
            None => exit.into(),
        },
        Err(_) => {
            output.error("this is a defect of Trapline; please report it with the command line and the files it names");
            Exit::Internal.into()
        }
    }
}

/// The JSON Schema, indented, with a newline at its end: the same bytes as scenarios/scenario.schema.json.
fn schema() -> String {
    format!("{:#}\n", scenario::schema::document())
}

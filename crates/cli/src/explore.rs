//! `trapline explore`: searches the interleavings of a scenario's CPUs.

use crate::arguments::Explore;
use crate::exit::Exit;
use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use scenario::explore::{Exploration, Options, document};
use scenario::load::Scenario;

/// Explores the scenario.
pub fn explore(arguments: &Explore, output: &Output) -> Exit {
    let scenario = match Scenario::load(&arguments.file) {
        Ok(scenario) => scenario,
        Err(diagnostics) => {
            output.complain(&diagnostics.render(output.error_colours));
            return Exit::Invalid;
        }
    };
    let pool = match rayon::ThreadPoolBuilder::new().num_threads(arguments.jobs.unwrap_or(0)).build() {
        Ok(pool) => pool,
        Err(error) => {
            output.error(error);
            return Exit::Internal;
        }
    };
    let options = Options { preemptions: arguments.preemptions, budget: arguments.budget, seed: arguments.seed };
    let mut found: Vec<Exploration> = Vec::new();
    let mut written = false;
    let variants =
        scenario.variants.iter().filter(|variant| arguments.only.as_ref().is_none_or(|only| variant.name().contains(only.as_str())));
    for variant in variants {
        let target = if output.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(options.budget), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of at most {len} runs on {msg}") {
            bar.set_style(style);
        }
        bar.set_message(variant.name());
        let searched = pool.install(|| scenario::explore::explore(&scenario, variant, &options, &|done| bar.set_position(done)));
        bar.finish_and_clear();
        let exploration = match searched {
            Ok(exploration) => exploration,
            Err(error) => {
                output.error(format_args!("{} on {}: {error}", arguments.file.display(), variant.name()));
                return Exit::Invalid;
            }
        };
        if !output.json() && (!output.quiet || exploration.finding.is_some()) {
            let name = output.paint("1", &exploration.machine);
            output.print(&format!("{} on {name}\n{}\n", scenario.file.title, exploration.text(&options)));
        }
        if let (Some(finding), Some(path), false) = (&exploration.finding, &arguments.output, written) {
            let text = format!("{:#}\n", document(&scenario, variant, finding, &exploration.schedule));
            if let Err(error) = std::fs::write(path, text) {
                output.error(format_args!("cannot write {}: {error}", path.display()));
                return Exit::Invalid;
            }
            written = true;
        }
        found.push(exploration);
    }
    if found.is_empty() {
        output.error("no machine of the scenario has a name with that text");
        return Exit::Invalid;
    }
    let violated = found.iter().any(|exploration| exploration.finding.is_some());
    if output.json() {
        let document = serde_json::json!({
            "schema_version": 1,
            "file": arguments.file.display().to_string(),
            "title": scenario.file.title,
            "preemptions": options.preemptions,
            "budget": options.budget,
            "seed": options.seed,
            "passed": !violated,
            "machines": found.iter().map(Exploration::to_json).collect::<Vec<_>>(),
        });
        output.print(&format!("{document:#}\n"));
    }
    if violated { Exit::Failed } else { Exit::Success }
}

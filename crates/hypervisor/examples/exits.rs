//! Runs a guest that exits a million times, to be measured from outside: `time cargo run --release --example exits intel vmcall`.
//! The words after the vendor are the loop's body; RCX counts down from 2^20.

use board::loader::{Kind, LoadOptions, load};
use hypervisor::{AnyVm, Limits, VmConfig};

/// Counts and keeps nothing.
struct Count(u64);

impl trace::Sink for Count {
    fn emit(&mut self, _: u64, _: u32, event: trace::Event) {
        self.0 += u64::from(matches!(event, trace::Event::Exit { .. }));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let vendor = words.next().unwrap_or_else(|| "intel".to_owned());
    let body: Vec<String> = words.collect();
    let model = if vendor == "amd" { &models::ZEN3 } else { &models::SKYLAKE_SERVER };
    let text = format!("mov ebp, 0x100000\n again: mov eax, 1\n {}\n dec ebp\n jnz again\n hlt", body.join(" ").replace(';', "\n"));
    let options = assembler::Options { origin: 0x10_0000, ..assembler::Options::default() };
    let program = assembler::assemble(&text, &options).map_err(|faults| format!("{faults:#?}"))?;
    let config = VmConfig::new(model);
    let mut vm = AnyVm::new(&config)?;
    let image = load(&program.bytes, &LoadOptions { kind: Kind::Flat, memory_size: config.memory_size, ..LoadOptions::default() })?;
    vm.load(&image)?;
    let mut sink = Count(0);
    let stop = vm.run(&mut sink, &Limits::NONE);
    println!("{} exits, {} instructions, {} cycles: {stop:?}", sink.0, vm.instructions(), vm.cycles());
    Ok(())
}

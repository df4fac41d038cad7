//! The canonical text, the NDJSON and the summary of the events around one foreign hypercall on Intel.

use trace::{ByteString, Event, Format, Kind, Record, Sink, Summary, Tee, Transcript, Writer};

fn exit(reason: &'static str, rip: u64, intr_info: u32) -> Event {
    Event::Exit { reason: reason.into(), failed_entry: false, rip, info1: 0, info2: 0, intr_info, error_code: 0 }
}

fn entry(rip: u64) -> Event {
    Event::Entry { rip, intr_info: 0, error_code: 0 }
}

fn foreign_call(sink: &mut dyn Sink) {
    let bytes = ByteString::from([0x0f, 0x01, 0xd9]);
    sink.emit(10, 0, entry(0x1000));
    sink.emit(1000, 0, exit("EXCEPTION_NMI", 0x1005, 0x8000_0306));
    sink.emit(1100, 0, Event::EmulateInstruction { cs_base: 0, rip: 0x1005, bytes, mode: "prot64", failed: false });
    sink.emit(1200, 0, Event::Patch { gpa: 0x1005, old: bytes, new: [0x0f, 0x01, 0xc1].into() });
    sink.emit(1300, 0, entry(0x1005));
    sink.emit(2000, 0, exit("VMCALL", 0x1005, 0));
    sink.emit(2000, 0, Event::Hypercall { nr: 1, a0: 2, a1: 3, a2: 4, a3: 5 });
    sink.emit(2150, 0, entry(0x1008));
    sink.emit(2600, 0, exit("VMCALL", 0x1010, 0));
    sink.emit(2850, 0, entry(0x1013));
}

#[test]
fn the_text_is_the_kernels() {
    let mut transcript = Transcript::new(100);
    foreign_call(&mut transcript);
    insta::assert_snapshot!(transcript.text());
}

#[test]
fn every_event_has_a_line_of_text_and_the_same_fields_in_json() {
    let bytes = ByteString::from([0x0f, 0x01, 0xc1]);
    let events = [
        Event::Exit { reason: trace::Name::Code(0x8c), failed_entry: true, rip: 1, info1: 2, info2: u64::MAX, intr_info: 4, error_code: 5 },
        Event::Entry { rip: 1, intr_info: 0x8000_0306, error_code: 0 },
        Event::Hypercall { nr: 5, a0: 0, a1: 1, a2: 0, a3: 0 },
        Event::HypervHypercall { code: 8, fast: true, var_cnt: 0, rep_cnt: 1, idx: 0, input: 0x1000, output: 0x2000 },
        Event::HypervHypercallDone { result: 3 },
        Event::EmulateInstruction { cs_base: 0x10000, rip: 2, bytes, mode: "real", failed: true },
        Event::InjectException { vector: 14, error_code: Some(3), reinjected: true },
        Event::InjectException { vector: 6, error_code: None, reinjected: false },
        Event::InjectInterrupt { vector: 0x20, software: false, reinjected: false },
        Event::InjectInterrupt { vector: 0x80, software: true, reinjected: true },
        Event::PageFault { rip: 1, address: 0xfee0_0000, error_code: 0x181 },
        Event::FastPageFault { gva: 0x5000, error_code: 0x13, sptep: 0x100_2028, old: 0x5e75, new: 0x5e77, spurious: false },
        Event::SplitHugePage { gfn: 0x200, spte: 0x20_00f7, level: 2 },
        Event::DirtyLog { action: "read", by: "page-modification log", pages: 12, cycles: 3456 },
        Event::PageWait { gfn: 0x400 },
        Event::Round { round: 2, pages: 12, bytes: 3456, cycles: 789, remaining: 3, dirty_rate: 4000, downtime: 56_789, throttle: 20 },
        Event::Handover { side: "source", what: "says commit".into() },
        Event::LinkFault { what: "drop", message: "commit".into() },
        Event::Msr { write: true, ecx: 0x4b56_4d01, data: 1, fault: true },
        Event::ControlRegister { write: true, number: 4, value: 0x20 },
        Event::Cpuid { function: 0x4000_0000, index: 0, rax: 0x4000_0001, rbx: 1, rcx: 2, rdx: 3, found: true },
        Event::PortIo { write: false, port: 0x3fd, size: 1, count: 1, value: 0x60 },
        Event::Mmio { write: true, length: 3, gpa: 0x10_0000, value: 0xc1010f },
        Event::Apic { write: true, register: "APIC_EOI".into(), value: 0 },
        Event::UserspaceExit { reason: "KVM_EXIT_HYPERCALL".into(), number: 3 },
        Event::Patch { gpa: 0x1000, old: bytes, new: [0x0f, 0x01, 0xd9].into() },
        Event::ContentionBegin { lock: "kvm->lock", flags: "MUTEX" },
        Event::ContentionEnd { lock: "kvm->lock" },
        Event::Violation { invariant: "intact-text".to_owned(), detail: "CPU 1 executes 0f 0b".to_owned() },
        Event::Zap { mappings: 7 },
        Event::Migrate { from: "skylake-server".into(), to: "zen3".into(), ledger: vec!["one thing".into(), "another".into()] },
        Event::Script { at: "exit 3".into(), action: "migrate to zen3".into() },
        Event::Stop { reason: "halted".into() },
        Event::SiliconExit { reason: "HLT".into(), failed_entry: false, rip: 1, info1: 2, info2: 3, intr_info: 4, error_code: 5 },
        Event::SiliconEntry { rip: 1, intr_info: 0, error_code: 0 },
        Event::Exception { vector: 14, error_code: Some(2), rip: 0x1000, cr2: Some(0x2000) },
        Event::Exception { vector: 0x1f, error_code: None, rip: 0x1000, cr2: None },
        Event::Interrupt { source: "IRQ", vector: 0x21, rip: 0x1000 },
        Event::TripleFault { rip: 0x1000 },
    ];
    let mut seen: Vec<Kind> = events.iter().map(Event::kind).collect();
    seen.dedup();
    assert_eq!(seen, Kind::ALL, "an event of the table is missing here");
    let mut text = String::new();
    for event in events {
        let record = Record { cycle: 1234, vcpu: 1, event };
        let json: serde_json::Value = serde_json::from_str(&record.to_json()).expect("a line of NDJSON is JSON");
        assert_eq!(json["event"], record.event.kind().name());
        assert_eq!((&json["cycle"], &json["vcpu"]), (&1234.into(), &1.into()));
        text += &format!("{record}\n{}\n", record.to_json());
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_transcript_keeps_its_cap_and_notices_what_it_does_not_keep() {
    let run = |last: u64| {
        let mut transcript = Transcript::new(3);
        foreign_call(&mut transcript);
        transcript.emit(last, 0, entry(0x1013));
        transcript
    };
    let (one, other) = (run(3000), run(3001));
    assert_eq!(one.records().len(), 3);
    assert_eq!(one.total(), 11);
    assert_ne!(one.text(), other.text());
    insta::assert_snapshot!(one.text());
}

#[test]
fn the_hash_is_fnv_1a_of_the_text() {
    // The documented definition, applied to what a whole transcript prints.
    let mut whole = Transcript::new(usize::MAX);
    foreign_call(&mut whole);
    let hash = whole.text().bytes().fold(0xcbf29ce484222325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100000001b3));
    assert_eq!(whole.hash(), hash);
}

#[test]
fn the_summary_is_the_table_of_perf() {
    let mut summary = Summary::new();
    foreign_call(&mut summary);
    assert_eq!((summary.exits(), summary.exits_with("VMCALL"), summary.exits_with("HLT")), (3, 2, 0));
    assert_eq!(summary.count(Kind::Patch), 1);
    insta::assert_snapshot!(summary.table());
}

#[test]
fn a_writer_writes_text_or_ndjson_and_keeps_its_error() {
    let mut both = Tee(Writer::new(Vec::new(), Format::Text), Writer::new(Vec::new(), Format::Ndjson));
    foreign_call(&mut both);
    let mut transcript = Transcript::new(100);
    foreign_call(&mut transcript);
    let text = both.0.finish().expect("a vector takes every write");
    assert_eq!(String::from_utf8(text).expect("UTF-8"), transcript.text());
    let json = String::from_utf8(both.1.finish().expect("a vector takes every write")).expect("UTF-8");
    assert_eq!(json.lines().next(), Some(r#"{"format":"trapline-trace","schema_version":1}"#));
    assert_eq!(json.lines().count() as u64, transcript.total() + 1);

    let mut full = [0_u8; 16];
    let mut writer = Writer::new(&mut full[..], Format::Text);
    foreign_call(&mut writer);
    assert!(writer.finish().is_err());
}

//! The text that Linux prints of a VMCS or VMCB when an entry failed, found in whatever surrounds it.
//!
//! Modelled: `dump_vmcs` of KVM (module parameter `dump_invalid_vmcs`) in its forms since 2015, Xen's dump of a VMCS, which has the same
//! headings, and `dump_vmcb` of KVM; a log's time stamps, levels, module names and quotation marks in front of each line; lines of others in
//! between; several dumps in one log, of which the last counts. A label counts only in its section and at the start of a line's own text.
//! Not modelled: what the kernel does not print. Those words stay unknown: addresses of bitmaps and lists, the VMCS link pointer, memory.

use crate::state::{ReadError, Source, State};
use models::{CpuModel, Vendor};

/// A part of the text, by its heading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Guest,
    Host,
    Control,
    ControlArea,
    SaveArea,
}

const HEADINGS: [(&str, Section); 5] = [
    ("*** Guest State ***", Section::Guest),
    ("*** Host State ***", Section::Host),
    ("*** Control State ***", Section::Control),
    ("VMCB Control Area:", Section::ControlArea),
    ("VMCB State Save Area:", Section::SaveArea),
];

/// Where a number goes: the word, the lowest bit in it, how many bits. No bits means the whole word; no word, that the number is passed over.
type Target = (&'static str, u32, u32);

/// One number of a line: its label, white space left out; an empty one stands for the next number. Then its radix and where it goes.
type Number = (&'static str, u32, Target);

/// One kind of line: its numbers. The first must be there; the others too, where `whole`, or else those that are count.
struct Line {
    section: Section,
    whole: bool,
    numbers: &'static [Number],
}

macro_rules! lines {
    ($($section:ident $({$whole:ident})? [$($label:literal $($radix:literal)? => $word:literal $(@ $low:literal + $bits:literal)?),*];)*) => {
        &[$(Line {
            section: Section::$section,
            whole: lines!(@whole $($whole)?),
            numbers: &[$(($label, lines!(@number 16 $(, $radix)?), ($word, lines!(@number 0 $(, $low)?), lines!(@number 0 $(, $bits)?)))),*],
        }),*]
    };
    (@whole) => { false };
    (@whole whole) => { true };
    (@number $default:literal) => { $default };
    (@number $default:literal, $given:literal) => { $given };
}

/// Every kind of line that either kernel prints.
const LINES: &[Line] = lines! {
    Guest ["CR0:actual=" => "GuestCr0", "shadow=" => "Cr0ReadShadow", "gh_mask=" => "Cr0GuestHostMask"];
    Guest ["CR4:actual=" => "GuestCr4", "shadow=" => "Cr4ReadShadow", "gh_mask=" => "Cr4GuestHostMask"];
    Guest ["CR3=" => "GuestCr3"];
    Guest ["PDPTR0=" => "GuestPdpte0", "PDPTR1=" => "GuestPdpte1"];
    Guest ["PDPTR2=" => "GuestPdpte2", "PDPTR3=" => "GuestPdpte3"];
    Guest ["PDPTE0=" => "GuestPdpte0", "PDPTE1=" => "GuestPdpte1"];
    Guest ["PDPTE2=" => "GuestPdpte2", "PDPTE3=" => "GuestPdpte3"];
    Guest ["RSP=" => "GuestRsp", "RIP=" => "GuestRip"];
    Guest ["RFLAGS=" => "GuestRflags", "DR7=" => "GuestDr7"];
    Guest ["SysenterRSP=" => "GuestSysenterEsp", "CS:RIP=" => "GuestSysenterCs", ":" => "GuestSysenterEip"];
    Guest {whole} ["CS:sel=" => "GuestCsSelector", "attr=" => "GuestCsAccessRights", "limit=" => "GuestCsLimit", "base=" => "GuestCsBase"];
    Guest {whole} ["DS:sel=" => "GuestDsSelector", "attr=" => "GuestDsAccessRights", "limit=" => "GuestDsLimit", "base=" => "GuestDsBase"];
    Guest {whole} ["SS:sel=" => "GuestSsSelector", "attr=" => "GuestSsAccessRights", "limit=" => "GuestSsLimit", "base=" => "GuestSsBase"];
    Guest {whole} ["ES:sel=" => "GuestEsSelector", "attr=" => "GuestEsAccessRights", "limit=" => "GuestEsLimit", "base=" => "GuestEsBase"];
    Guest {whole} ["FS:sel=" => "GuestFsSelector", "attr=" => "GuestFsAccessRights", "limit=" => "GuestFsLimit", "base=" => "GuestFsBase"];
    Guest {whole} ["GS:sel=" => "GuestGsSelector", "attr=" => "GuestGsAccessRights", "limit=" => "GuestGsLimit", "base=" => "GuestGsBase"];
    Guest {whole} ["LDTR:sel=" => "GuestLdtrSelector", "attr=" => "GuestLdtrAccessRights", "limit=" => "GuestLdtrLimit", "base=" => "GuestLdtrBase"];
    Guest {whole} ["TR:sel=" => "GuestTrSelector", "attr=" => "GuestTrAccessRights", "limit=" => "GuestTrLimit", "base=" => "GuestTrBase"];
    Guest {whole} ["GDTR:limit=" => "GuestGdtrLimit", "base=" => "GuestGdtrBase"];
    Guest {whole} ["IDTR:limit=" => "GuestIdtrLimit", "base=" => "GuestIdtrBase"];
    // Xen prints the segments as a table.
    Guest {whole} ["CS:" => "GuestCsSelector", "" => "GuestCsAccessRights", "" => "GuestCsLimit", "" => "GuestCsBase"];
    Guest {whole} ["DS:" => "GuestDsSelector", "" => "GuestDsAccessRights", "" => "GuestDsLimit", "" => "GuestDsBase"];
    Guest {whole} ["SS:" => "GuestSsSelector", "" => "GuestSsAccessRights", "" => "GuestSsLimit", "" => "GuestSsBase"];
    Guest {whole} ["ES:" => "GuestEsSelector", "" => "GuestEsAccessRights", "" => "GuestEsLimit", "" => "GuestEsBase"];
    Guest {whole} ["FS:" => "GuestFsSelector", "" => "GuestFsAccessRights", "" => "GuestFsLimit", "" => "GuestFsBase"];
    Guest {whole} ["GS:" => "GuestGsSelector", "" => "GuestGsAccessRights", "" => "GuestGsLimit", "" => "GuestGsBase"];
    Guest {whole} ["LDTR:" => "GuestLdtrSelector", "" => "GuestLdtrAccessRights", "" => "GuestLdtrLimit", "" => "GuestLdtrBase"];
    Guest {whole} ["TR:" => "GuestTrSelector", "" => "GuestTrAccessRights", "" => "GuestTrLimit", "" => "GuestTrBase"];
    Guest {whole} ["GDTR:" => "GuestGdtrLimit", "" => "GuestGdtrBase"];
    Guest {whole} ["IDTR:" => "GuestIdtrLimit", "" => "GuestIdtrBase"];
    Guest ["EFER=" => "GuestEfer", "PAT=" => "GuestPat"];
    Guest ["EFER(VMCS)=" => "GuestEfer", "PAT=" => "GuestPat"];
    Guest ["PAT=" => "GuestPat"];
    Guest ["DebugCtl=" => "GuestDebugctl", "DebugExceptions=" => "GuestPendingDebugExceptions"];
    Guest ["PerfGlobCtl=" => "GuestPerfGlobalCtrl", "BndCfgS=" => "GuestBndcfgs"];
    Guest ["BndCfgS=" => "GuestBndcfgs"];
    Guest ["S_CET=" => "GuestSCet", "SSP=" => "GuestSsp", "SSPTABLE=" => "GuestInterruptSspTableAddress"];
    Guest ["Interruptibility=" => "GuestInterruptibilityState", "ActivityState=" => "GuestActivityState"];
    Guest ["InterruptStatus=" => "GuestInterruptStatus"];
    Host ["RIP=" => "HostRip", "RSP=" => "HostRsp"];
    Host ["CS=" => "HostCsSelector", "SS=" => "HostSsSelector", "DS=" => "HostDsSelector", "ES=" => "HostEsSelector", "FS=" => "HostFsSelector",
        "GS=" => "HostGsSelector", "TR=" => "HostTrSelector"];
    Host ["FSBase=" => "HostFsBase", "GSBase=" => "HostGsBase", "TRBase=" => "HostTrBase"];
    Host ["GDTBase=" => "HostGdtrBase", "IDTBase=" => "HostIdtrBase"];
    Host ["CR0=" => "HostCr0", "CR3=" => "HostCr3", "CR4=" => "HostCr4"];
    Host ["SysenterRSP=" => "HostSysenterEsp", "CS:RIP=" => "HostSysenterCs", ":" => "HostSysenterEip"];
    Host ["EFER=" => "HostEfer", "PAT=" => "HostPat"];
    Host ["PAT=" => "HostPat"];
    Host ["PerfGlobCtl=" => "HostPerfGlobalCtrl"];
    Host ["S_CET=" => "HostSCet", "SSP=" => "HostSsp", "SSPTABLE=" => "HostInterruptSspTableAddress"];
    Control ["PinBased=" => "PinBasedControls", "CPUBased=" => "PrimaryProcessorBasedControls",
        "SecondaryExec=" => "SecondaryProcessorBasedControls", "TertiaryExec=" => "TertiaryProcessorBasedControls"];
    Control ["PinBased=" => "PinBasedControls", "EntryControls=" => "EntryControls", "ExitControls=" => "PrimaryExitControls"];
    Control ["CPUBased=" => "PrimaryProcessorBasedControls", "SecondaryExec=" => "SecondaryProcessorBasedControls",
        "TertiaryExec=" => "TertiaryProcessorBasedControls"];
    Control ["EntryControls=" => "EntryControls", "ExitControls=" => "PrimaryExitControls"];
    Control ["ExitControls=" => "PrimaryExitControls", "SecondaryExitControls=" => "SecondaryExitControls"];
    Control ["ExceptionBitmap=" => "ExceptionBitmap", "PFECmask=" => "PageFaultErrorCodeMask", "PFECmatch=" => "PageFaultErrorCodeMatch"];
    Control ["VMEntry:intr_info=" => "EntryInterruptionInformation", "errcode=" => "EntryExceptionErrorCode",
        "ilen=" => "EntryInstructionLength"];
    Control ["VMExit:intr_info=" => "ExitInterruptionInformation", "errcode=" => "ExitInterruptionErrorCode",
        "ilen=" => "ExitInstructionLength"];
    Control ["reason=" => "ExitReason", "qualification=" => "ExitQualification"];
    Control ["IDTVectoring:info=" => "IdtVectoringInformation", "errcode=" => "IdtVectoringErrorCode"];
    Control ["TSCOffset=" => "TscOffset", "TSCMultiplier=" => "TscMultiplier"];
    Control ["TSCMultiplier=" => "TscMultiplier"];
    Control ["SVI|RVI=" => "", "TPRThreshold=" => "TprThreshold"];
    Control ["TPRThreshold=" => "TprThreshold", "PostedIntrVec=" => "PostedInterruptNotificationVector"];
    Control ["APIC-accessaddr=" => "ApicAccessAddress", "virt-APICaddr=" => "VirtualApicAddress"];
    Control ["virt-APICaddr=" => "VirtualApicAddress"];
    Control ["PostedIntrVec=" => "PostedInterruptNotificationVector"];
    Control ["EPTpointer=" => "EptPointer", "EPTPindex=" => "EptpIndex"];
    Control ["PLEGap=" => "PleGap", "Window=" => "PleWindow"];
    Control ["VirtualprocessorID=" => "VirtualProcessorIdentifier", "VMfunccontrols=" => "VmFunctionControls"];
    Control ["VEinfoaddress=" => "VirtualizationExceptionInformationAddress"];
    ControlArea ["cr_read:" => "INTERCEPTS[0]" @ 0 + 16];
    ControlArea ["cr_write:" => "INTERCEPTS[0]" @ 16 + 16];
    ControlArea ["dr_read:" => "INTERCEPTS[1]" @ 0 + 16];
    ControlArea ["dr_write:" => "INTERCEPTS[1]" @ 16 + 16];
    ControlArea ["exceptions:" => "INTERCEPTS[2]"];
    ControlArea ["intercepts:" => "INTERCEPTS[3]", "" => "INTERCEPTS[4]", "" => "INTERCEPTS[5]"];
    ControlArea ["pausefiltercount:" 10 => "PAUSE_FILTER_COUNT"];
    ControlArea ["pausefilterthreshold:" 10 => "PAUSE_FILTER_THRESHOLD"];
    ControlArea ["iopm_base_pa:" => "IOPM_BASE_PA"];
    ControlArea ["msrpm_base_pa:" => "MSRPM_BASE_PA"];
    ControlArea ["tsc_offset:" => "TSC_OFFSET"];
    ControlArea ["asid:" 10 => "GUEST_ASID"];
    ControlArea ["tlb_ctl:" 10 => "TLB_CONTROL"];
    ControlArea ["int_ctl:" => "V_INTR" @ 0 + 32];
    ControlArea ["int_vector:" => "V_INTR" @ 32 + 32];
    ControlArea ["int_state:" => "INTERRUPT_SHADOW"];
    ControlArea ["exit_code:" => "EXITCODE"];
    ControlArea ["exit_info1:" => "EXITINFO1"];
    ControlArea ["exit_info2:" => "EXITINFO2"];
    ControlArea ["exit_int_info:" => "EXITINTINFO" @ 0 + 32];
    ControlArea ["exit_int_info_err:" => "EXITINTINFO" @ 32 + 32];
    ControlArea ["nested_ctl:" 10 => "NP_CONTROL"];
    ControlArea ["nested_cr3:" => "N_CR3"];
    ControlArea ["avic_vapic_bar:" => "AVIC_APIC_BAR"];
    ControlArea ["ghcb:" => "GHCB_PA"];
    ControlArea ["event_inj:" => "EVENTINJ" @ 0 + 32];
    ControlArea ["event_inj_err:" => "EVENTINJ" @ 32 + 32];
    ControlArea ["virt_ext:" 10 => "VIRT_EXT"];
    ControlArea ["next_rip:" => "NRIP"];
    ControlArea ["avic_backing_page:" => "AVIC_BACKING_PAGE"];
    ControlArea ["avic_logical_id:" => "AVIC_LOGICAL_TABLE"];
    ControlArea ["avic_physical_id:" => "AVIC_PHYSICAL_TABLE"];
    ControlArea ["vmsa_pa:" => "VMSA_PA"];
    SaveArea {whole} ["es:s:" => "ES.SELECTOR", "a:" => "ES.ATTRIB", "l:" => "ES.LIMIT", "b:" => "ES.BASE"];
    SaveArea {whole} ["cs:s:" => "CS.SELECTOR", "a:" => "CS.ATTRIB", "l:" => "CS.LIMIT", "b:" => "CS.BASE"];
    SaveArea {whole} ["ss:s:" => "SS.SELECTOR", "a:" => "SS.ATTRIB", "l:" => "SS.LIMIT", "b:" => "SS.BASE"];
    SaveArea {whole} ["ds:s:" => "DS.SELECTOR", "a:" => "DS.ATTRIB", "l:" => "DS.LIMIT", "b:" => "DS.BASE"];
    SaveArea {whole} ["fs:s:" => "FS.SELECTOR", "a:" => "FS.ATTRIB", "l:" => "FS.LIMIT", "b:" => "FS.BASE"];
    SaveArea {whole} ["gs:s:" => "GS.SELECTOR", "a:" => "GS.ATTRIB", "l:" => "GS.LIMIT", "b:" => "GS.BASE"];
    SaveArea {whole} ["gdtr:s:" => "GDTR.SELECTOR", "a:" => "GDTR.ATTRIB", "l:" => "GDTR.LIMIT", "b:" => "GDTR.BASE"];
    SaveArea {whole} ["ldtr:s:" => "LDTR.SELECTOR", "a:" => "LDTR.ATTRIB", "l:" => "LDTR.LIMIT", "b:" => "LDTR.BASE"];
    SaveArea {whole} ["idtr:s:" => "IDTR.SELECTOR", "a:" => "IDTR.ATTRIB", "l:" => "IDTR.LIMIT", "b:" => "IDTR.BASE"];
    SaveArea {whole} ["tr:s:" => "TR.SELECTOR", "a:" => "TR.ATTRIB", "l:" => "TR.LIMIT", "b:" => "TR.BASE"];
    SaveArea ["vmpl:" 10 => "", "cpl:" 10 => "CPL", "efer:" => "EFER"];
    SaveArea ["cpl:" 10 => "CPL", "efer:" => "EFER"];
    SaveArea ["cr0:" => "CR0", "cr2:" => "CR2"];
    SaveArea ["cr3:" => "CR3", "cr4:" => "CR4"];
    SaveArea ["dr6:" => "DR6", "dr7:" => "DR7"];
    SaveArea ["rip:" => "RIP", "rflags:" => "RFLAGS"];
    SaveArea ["rsp:" => "RSP", "rax:" => "RAX"];
    SaveArea ["star:" => "STAR", "lstar:" => "LSTAR"];
    SaveArea ["cstar:" => "CSTAR", "sfmask:" => "SFMASK"];
    SaveArea ["kernel_gs_base:" => "KERNEL_GS_BASE", "sysenter_cs:" => "SYSENTER_CS"];
    SaveArea ["sysenter_esp:" => "SYSENTER_ESP", "sysenter_eip:" => "SYSENTER_EIP"];
    SaveArea ["gpat:" => "G_PAT", "dbgctl:" => "DBGCTL"];
    SaveArea ["br_from:" => "BR_FROM", "br_to:" => "BR_TO"];
    SaveArea ["excp_from:" => "LASTEXCPFROM", "excp_to:" => "LASTEXCPTO"];
};

/// The lists of MSRs whose lines say how many entries they have: the heading, and the field with the count.
const LISTS: [(&str, &str); 3] =
    [("MSR guest autoload:", "EntryMsrLoadCount"), ("MSR host autoload:", "ExitMsrLoadCount"), ("MSR autostore:", "ExitMsrStoreCount")];

/// Longest line that is looked at, in bytes.
const LONGEST: usize = 1000;

/// Whose structure a text shows; nothing if it shows none. Of several the last counts.
pub fn vendor(text: &str) -> Option<Vendor> {
    let vmcs =
        HEADINGS.iter().filter(|(_, section)| vendor_of(*section) == Vendor::Intel).filter_map(|(heading, _)| text.rfind(heading)).max();
    let vmcb =
        HEADINGS.iter().filter(|(_, section)| vendor_of(*section) == Vendor::Amd).filter_map(|(heading, _)| text.rfind(heading)).max();
    match (vmcs, vmcb) {
        (None, None) => None,
        (vmcs, vmcb) if vmcs > vmcb => Some(Vendor::Intel),
        _ => Some(Vendor::Amd),
    }
}

const fn vendor_of(section: Section) -> Vendor {
    match section {
        Section::Guest | Section::Host | Section::Control => Vendor::Intel,
        Section::ControlArea | Section::SaveArea => Vendor::Amd,
    }
}

/// Reads the last dump of a text.
///
/// # Errors
/// A number does not fit, or the processor has not that vendor's extension.
pub fn read(text: &str, vendor: Vendor, cpu: Option<&'static CpuModel>) -> Result<State, ReadError> {
    let first = if vendor == Vendor::Intel { Section::Guest } else { Section::ControlArea };
    let mut state = State::new(vendor, cpu, Source::Dump)?;
    let mut section = None;
    let mut seen: Vec<Section> = Vec::new();
    let mut dumps = 0;
    let mut list: Option<(&str, u64)> = None;
    let mut at = 0;
    for whole in text.split_inclusive('\n') {
        let start = at;
        at += whole.len();
        let line = whole.get(..LONGEST).unwrap_or(whole).trim_end();
        if let Some((_, heading)) = HEADINGS.iter().find(|(heading, section)| vendor_of(*section) == vendor && line.contains(heading)) {
            // A log may hold several dumps, and a dump may have lost its beginning.
            if *heading == first || seen.contains(heading) {
                if !seen.is_empty() {
                    state = State::new(vendor, cpu, Source::Dump)?;
                    seen.clear();
                }
                dumps += 1;
            }
            section = Some(*heading);
            seen.push(*heading);
            list = None;
            continue;
        }
        let Some(section) = section else { continue };
        if let Some((_, field)) = LISTS.iter().find(|(heading, _)| vendor == Vendor::Intel && line.contains(heading)) {
            list = Some((*field, 0));
            continue;
        }
        if let Some((field, count)) = &mut list
            && line.contains(": msr=")
        {
            *count += 1;
            let place = start..start + line.len();
            state.set(field, *count, place.clone())?;
            if *field == "EntryMsrLoadCount"
                && let (Some(index), Some(value)) = (list_number(line, "msr="), list_number(line, "value="))
                && let Ok(index) = u32::try_from(index)
            {
                state.add_msr_load(index, 0, value, place)?;
            }
            continue;
        }
        read_line(&mut state, line, start, section)?;
    }
    let names: Vec<&str> = HEADINGS
        .iter()
        .filter(|(_, section)| vendor_of(*section) == vendor && !seen.contains(section))
        .map(|(heading, _)| *heading)
        .collect();
    if !names.is_empty() {
        state.remarks.push(format!("the dump is not complete: there is no `{}`", names.join("`, no `")));
    }
    if dumps > 1 {
        state.remarks.push(format!("the text holds {dumps} dumps; this is the last"));
    }
    Ok(state)
}

/// The hexadecimal number behind a label in a line of a list.
fn list_number(line: &str, label: &str) -> Option<u64> {
    let digits = line.split_once(label)?.1.trim_start_matches("0x");
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    u64::from_str_radix(digits.get(..end)?, 16).ok()
}

/// Reads the numbers of a line, if it is one of those known: of several kinds, the one with the most numbers.
fn read_line(state: &mut State, line: &str, start: usize, section: Section) -> Result<(), ReadError> {
    let found = LINES.iter().filter(|kind| kind.section == section).filter_map(|kind| matched(kind, line)).max_by_key(Vec::len);
    for (target, value, from, to) in found.unwrap_or_default() {
        let (word, low, bits) = target;
        if word.is_empty() {
            continue;
        }
        let value = if bits == 0 {
            value
        } else {
            let mask = u64::MAX >> (64 - bits);
            let others = state.known(word).unwrap_or(0) & !(mask << low);
            others | (value & mask) << low
        };
        state.set(word, value, start + from..start + to)?;
    }
    Ok(())
}

/// A number of a line: where it goes, its value, and from where to where it stands with its label.
type Found = (Target, u64, usize, usize);

fn matched(kind: &Line, line: &str) -> Option<Vec<Found>> {
    let (first, rest) = kind.numbers.split_first()?;
    // The line's own text begins behind whatever a log puts in front: time, level, module, quotation marks.
    let starts = std::iter::once(0)
        .chain(line.char_indices().filter(|(_, c)| matches!(c, ' ' | '\t' | ':' | ']' | '>' | ')')).map(|(at, c)| at + c.len_utf8()));
    for begin in starts {
        if !own_text_may_begin(line, begin) {
            continue;
        }
        let Some((value, mut at)) = number(line, begin, first) else { continue };
        // What is not in the VMCS but in effect is marked so.
        if line[at..].trim_start().starts_with("(effective)") || line[at..].trim_start().starts_with("(autoload)") {
            return None;
        }
        let mut found = vec![(first.2, value, begin, at)];
        for next in rest {
            let place =
                if next.0.is_empty() || next.0 == ":" { number(line, at, next).map(|found| (at, found)) } else { search(line, at, next) };
            match place {
                Some((from, (value, end))) => {
                    found.push((next.2, value, from, end));
                    at = end;
                }
                None if kind.whole => return None,
                None => {}
            }
        }
        return Some(found);
    }
    None
}

/// Whether what stands before a place may be a log's doing.
fn own_text_may_begin(line: &str, at: usize) -> bool {
    line.get(..at).is_some_and(|before| before.trim_end().chars().next_back().is_none_or(|last| matches!(last, ':' | ']' | '>' | ')')))
}

/// The next place from which on a label and its number stand, at the start of a word.
fn search(line: &str, from: usize, wanted: &Number) -> Option<(usize, (u64, usize))> {
    let rest = line.get(from..)?;
    let starts = rest.char_indices().filter(|(_, c)| matches!(c, ' ' | ',' | ':')).map(|(at, c)| from + at + c.len_utf8());
    starts.into_iter().find_map(|at| number(line, at, wanted).map(|found| (at, found)))
}

/// A label, white space left out of account, and the number behind it: its value and where it ends.
fn number(line: &str, from: usize, (label, radix, _): &Number) -> Option<(u64, usize)> {
    let rest = line.get(from..)?;
    let mut wanted = label.chars().peekable();
    let mut at = from;
    for character in rest.chars() {
        if wanted.peek().is_none() {
            break;
        }
        if !character.is_whitespace() && wanted.next() != Some(character) {
            return None;
        }
        at += character.len_utf8();
    }
    if wanted.peek().is_some() {
        return None;
    }
    let rest = line.get(at..)?;
    let space = rest.len() - rest.trim_start().len();
    let digits = rest.get(space..)?;
    let prefix = if *radix == 16 && digits.starts_with("0x") { 2 } else { 0 };
    let digits = digits.get(prefix..)?;
    let end = digits.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(digits.len());
    let value = u64::from_str_radix(digits.get(..end)?, *radix).ok()?;
    Some((value, at + space + prefix + end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_word() {
        for line in LINES {
            let state = State::new(vendor_of(line.section), None, Source::Dump).unwrap();
            for (label, _, (word, _, _)) in line.numbers {
                assert!(word.is_empty() || state.find(word).is_some(), "{label} goes to {word}");
                assert!(!label.contains(' '), "{label}");
            }
        }
        let state = State::new(Vendor::Intel, None, Source::Dump).unwrap();
        assert!(LISTS.iter().all(|(_, field)| state.find(field).is_some()));
    }

    #[test]
    fn a_line_is_found_behind_what_a_log_puts_in_front() {
        for line in [
            "CR3 = 0x0000008000f76000",
            "[  673.862338] kvm_intel: CR3 = 0x0000008000f76000",
            "<3>[ 673.86] CR3 = 0x8000f76000",
            "Sep  8 22:52:20 host kernel: [10639.238051] CR3 = 0x0000008000f76000",
            "kern  :err   : [ 1.0] kvm_intel: CR3 = 0x0000008000f76000",
            "> CR3 = 0x0000008000f76000",
            "(XEN) CR3 = 0x0000008000f76000",
        ] {
            let text = format!("*** Guest State ***\n{line}\n");
            let state = read(&text, Vendor::Intel, None).unwrap();
            assert_eq!(state.known("GuestCr3"), Some(0x80_00f7_6000), "{line}");
        }
    }

    #[test]
    fn a_line_of_another_s_is_passed_over() {
        for line in
            ["RIP: 0010:native_halt+0x6/0x10", "CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033", "the guest has CR3 = 0x1000", ""]
        {
            let text = format!("*** Guest State ***\n[ 1.0] {line}\n");
            let state = read(&text, Vendor::Intel, None).unwrap();
            assert!(state.known.iter().all(|known| !known), "{line}");
        }
    }

    #[test]
    fn halves_of_a_word_come_together() {
        let text = "VMCB Control Area:\ncr_read: 0010\ncr_write: 0110\nint_ctl: 07000200\nint_vector: 00000041\nintercepts: bc4c8027 0000624f\nasid: 10\n";
        let state = read(text, Vendor::Amd, None).unwrap();
        assert_eq!(state.known("INTERCEPTS[0]"), Some(0x0110_0010));
        assert_eq!(state.known("V_INTR"), Some(0x41_0700_0200));
        assert_eq!(state.known("INTERCEPTS[4]"), Some(0x624f));
        assert_eq!(state.known("INTERCEPTS[5]"), None);
        assert_eq!(state.known("GUEST_ASID"), Some(10));
    }

    #[test]
    fn of_several_dumps_the_last_counts() {
        let one =
            "*** Guest State ***\nCR3 = 0x1000\nRFLAGS=0x2\n*** Host State ***\nCR0=80050033 CR3=2000 CR4=2020\n*** Control State ***\n";
        let text = format!("{one}{}", one.replace("0x1000", "0x3000").replace("RFLAGS=0x2\n", ""));
        let state = read(&text, Vendor::Intel, None).unwrap();
        assert_eq!((state.known("GuestCr3"), state.known("GuestRflags"), state.known("HostCr4")), (Some(0x3000), None, Some(0x2020)));
        assert_eq!(state.remarks, ["the text holds 2 dumps; this is the last"]);
    }
}

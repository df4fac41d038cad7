; No hypervisor: the guest is alone on the processor.
start:
        mov     eax, 1
        cpuid
        shr     ecx, 31
        mov     r8d, ecx                ; no hypervisor announces itself
        lea     rsi, [text]
        mov     ecx, text_end - text
        mov     dx, 0x3f8
        rep outsb
        hlt
text:   db      'bare', 10
text_end:

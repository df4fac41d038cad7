; An interrupt waits while interrupts are off. STI lets one more instruction go first; here that is a hypercall.
; R8 is where the interrupt came between, R9 what RAX held there.
APIC    equ 0xfee00000
start:
        mov     ebp, APIC
        mov     dword [rbp + 0xf0], 0x1ff          ; software-enable the local APIC
        mov     dword [rbp + 0x300], 0x44040       ; interrupt 0x40 to itself
        mov     eax, 0x7fff                             ; no such hypercall
        sti
site:   db      0x0f, 0x01, NATIVE ^ (NATIVE ^ FOREIGN) * USE_FOREIGN
after:  nop
        cli
        hlt

interrupt:
        mov     r8, [rsp]
        mov     r9, rax
        mov     dword [rbp + 0xb0], 0
        iretq

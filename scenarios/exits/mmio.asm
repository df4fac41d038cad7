; Memory that is a device: the I/O APIC's index and data registers, in several widths.
IOAPIC  equ 0xfec00000
start:
        mov     rbx, IOAPIC
        mov     dword [rbx], 1          ; version register
        mov     r8d, [rbx + 0x10]
        mov     dword [rbx], 0x12       ; redirection entry 1, low half
        mov     dword [rbx + 0x10], 0x10031
        mov     r9d, [rbx + 0x10]
        mov     eax, 0x5555aaaa
        mov     edx, 0x0f0f0f0f
        mov     dword [rbx], 0x13
        xchg    eax, [rbx + 0x10]       ; a read and a write in one instruction
        mov     r10d, eax
        hlt

; Two CPUs: the first sends itself a timer interrupt and waits for it, the second counts. A pause in between holds both.
APIC    equ 0xfee00000
start:
        test    edi, edi
        jnz     other
        mov     ebp, APIC
        mov     dword [rbp + 0xf0], 0x1ff
        mov     dword [rbp + 0x3e0], 0b1011     ; divide by 1
        mov     dword [rbp + 0x320], 0x30       ; one shot, vector 0x30
        rdtsc
        mov     r8d, eax
        mov     dword [rbp + 0x380], 30000
        sti
wait:   test    r15d, r15d
        jz      wait
        cli
        rdtsc
        sub     eax, r8d                        ; cycles until the interrupt was seen
        mov     byte [done], 1
        hlt

tick:   inc     r15d
        mov     dword [rbp + 0xb0], 0
        iretq

other:  inc     r14
        cmp     byte [done], 0
        je      other
        hlt

done:   db      0

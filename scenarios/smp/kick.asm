; CPU 1 halts with interrupts off, as a paravirtual spin lock does; CPU 0 wakes it with the hypercall KICK_CPU.
start:
        test    edi, edi
        jnz     sleeper
.wait:  pause
        cmp     dword [asleep], 0
        je      .wait
        mov     r12d, 2000              ; time to fall asleep
.delay: dec     r12d
        jnz     .delay
        mov     eax, 5                  ; KICK_CPU
        xor     ebx, ebx
        mov     ecx, 1                  ; APIC id of the sleeper
        db      0x0f, 0x01, FOREIGN
        mov     r8, rax
.ready: pause
        cmp     dword [awake], 0
        je      .ready
        mov     r9d, [awake]
        hlt
sleeper:
        mov     dword [asleep], 1
        hlt
        mov     dword [awake], 0x600d
        hlt

align 64
asleep: dd      0
align 64
awake:  dd      0

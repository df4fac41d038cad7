; CPU 0 waits for work: it says that it sleeps, looks once more whether there is work, and halts. CPU 1 brings work: it puts it down, looks
; whether somebody sleeps, and kicks him. MFENCES says how many fences stand between each one's store and its look.
KICK_CPU = 5
start:  test    edi, edi
        jnz     waker
sleeper:
        mov     dword [asleep], 1
        times MFENCES mfence
        cmp     dword [work], 0
        jne     .work
        hlt
        jmp     sleeper
.work:  mov     dword [done], 1
.stop:  hlt
        jmp     .stop
waker:  mov     dword [work], 1
        times MFENCES mfence
        cmp     dword [asleep], 0
        je      .stop
        mov     eax, KICK_CPU
        xor     ebx, ebx
        xor     ecx, ecx                ; APIC id of CPU 0
        db      0x0f, 0x01, NATIVE
.stop:  hlt
        jmp     .stop

align 64
asleep: dd      0
align 64
work:   dd      0
align 64
done:   dd      0

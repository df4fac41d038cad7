; A spin lock that sleeps: whoever finds it taken halts, and whoever releases it kicks the sleeper.
; Whoever will sleep says so first and then looks once more, both with locked instructions, so that a release comes before one or behind the other.
KICK_CPU = 5
start:
.again: mov     eax, 1
        xchg    [lock_word], eax
        test    eax, eax
        jz      .taken
        mov     eax, 1
        xchg    [waiting], eax
        mov     eax, 1
        xchg    [lock_word], eax
        test    eax, eax
        jz      .taken
        hlt
        jmp     .again
.taken: inc     dword [counter]
        xor     eax, eax
        xchg    [lock_word], eax
        cmp     dword [waiting], 0
        je      .done
        mov     dword [waiting], 0
        mov     eax, KICK_CPU
        xor     ebx, ebx
        mov     ecx, edi
        xor     ecx, 1                  ; APIC id of the other CPU
        db      0x0f, 0x01, NATIVE
.done:  hlt
        jmp     .done

align 64
lock_word:
        dd      0
align 64
waiting:
        dd      0
align 64
counter:
        dd      0

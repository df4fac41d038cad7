; A spin lock that sleeps: whoever finds it taken halts, and whoever releases it kicks the sleeper.
; The mistake: between the look at the lock and the word that somebody waits, the lock may be released, and nobody is kicked.
KICK_CPU = 5
start:
.again: mov     eax, 1
        xchg    [lock_word], eax
        test    eax, eax
        jz      .taken
        mov     dword [waiting], 1
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

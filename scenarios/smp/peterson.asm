; Peterson's lock for two CPUs: say that you want in, let the other one go first, and wait while it wants in and it is its turn.
; MFENCES says how many fences stand between the stores and the loads. Without one, the loads may be done while the stores still wait.
start:  mov     ebx, edi
        shl     ebx, 6
        mov     esi, ebx
        xor     esi, 64
        mov     dword [wants + rbx], 1
        mov     [first], esi
        times MFENCES mfence
.look:  cmp     dword [wants + rsi], 0
        je      .in
        cmp     [first], esi
        jne     .in
        pause
        jmp     .look
.in:    mov     eax, [counter]
        inc     eax
        mov     [counter], eax
        mov     dword [wants + rbx], 0
.done:  hlt
        jmp     .done

align 64
wants:  dd      0
align 64
        dd      0
align 64
first:  dd      0
align 64
counter:
        dd      0

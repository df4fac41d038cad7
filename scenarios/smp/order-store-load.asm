; Both CPUs store to a word of their own and load the other's: can both load what was there before?
; The constants say how many MFENCE, SFENCE and LFENCE stand between the two.
PARTS = 2
start:  mov     ebx, edi
        shl     ebx, 6                  ; x is CPU 0's, y is CPU 1's
        mov     esi, ebx
        xor     esi, 64
        mov     dword [x + rbx], 1
        times MFENCES mfence
        times SFENCES sfence
        times LFENCES lfence
        mov     eax, [x + rsi]
        xor     ecx, ecx
        test    eax, eax
        setz    cl

; ecx says whether this CPU saw its part of the outcome in question; whoever finds that every part was seen says so.
judge:  mov     eax, ecx
        lock xadd [parts], eax
        add     eax, ecx
        cmp     eax, PARTS
        jne     .done
        mov     dword [seen], 1
.done:  hlt
        jmp     .done

align 64
x:      dd      0
align 64
y:      dd      0
align 64
parts:  dd      0
seen:   dd      0

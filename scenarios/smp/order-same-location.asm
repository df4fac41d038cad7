; Each CPU stores to a word and loads it again: can it load what was there before?
PARTS = 1
start:  mov     ebx, edi
        shl     ebx, 6
        mov     dword [x + rbx], 1
        mov     eax, [x + rbx]
        mov     esi, ebx
        xor     esi, 64
        mov     edx, [x + rsi]          ; so that the store may wait
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

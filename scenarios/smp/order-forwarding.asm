; Each CPU stores to a word of its own, loads it, and loads the other's: can both see their own store and not yet the other's?
PARTS = 2
start:  mov     ebx, edi
        shl     ebx, 6                  ; x is CPU 0's, y is CPU 1's
        mov     esi, ebx
        xor     esi, 64
        mov     dword [x + rbx], 1
        mov     eax, [x + rbx]
        mov     edx, [x + rsi]
        xor     edx, 1
        and     eax, edx
        mov     ecx, eax

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

; CPU 0 stores to x and then to y, both with XCHG if LOCKS is 1: can CPU 1 see the second and behind it not the first?
PARTS = 1
start:  test    edi, edi
        jnz     reader
        xor     ecx, ecx
        mov     eax, 1
        times LOCKS xchg [x], eax
        times 1 - LOCKS mov dword [x], 1
        mov     dword [y], 1
        jmp     judge
reader: mov     eax, [y]
        mov     edx, [x]
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

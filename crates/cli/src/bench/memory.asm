; Follows a chain through 32 MiB: every step is on another page, in an order that no prefetcher of the host guesses.
PAGES   equ     8192
BASE    equ     0x1000000
start:  xor     ecx, ecx
        xor     eax, eax
        mov     rbx, BASE
link:   imul    edx, ecx, 3285          ; the next page: a walk over all of them, since 3284 is a multiple of 4 and 1013 odd
        add     edx, 1013
        and     edx, PAGES - 1
        mov     esi, ecx
        shl     rsi, 12
        shl     rdx, 12
        add     rdx, rbx
        mov     [rbx + rsi], rdx
        inc     ecx
        cmp     ecx, PAGES
        jb      link
        mov     rcx, TURNS
again:  mov     rbx, [rbx]
        dec     rcx
        jnz     again
        hlt

; Guest-physical addresses behind which there is nothing: reads give all ones, writes go nowhere.
start:
        mov     rbx, 0xd0000000
        mov     r8, [rbx]
        mov     qword [rbx], 0x1234
        mov     r9d, [rbx]
        hlt

; A guest that never stops: the limit of the scenario does it.
start:
        jmp     start

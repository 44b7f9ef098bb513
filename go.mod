module zwrm

go 1.26

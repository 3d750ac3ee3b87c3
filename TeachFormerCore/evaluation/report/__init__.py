"""From run folders to tables, statistics, figures and one page.

`study` reads what is finished and what is not; `results` scores it; `comparisons`, `tables`, `figures` and `panels` say
it; `document` writes it. What the rooms above know (prepared cases, the networks' sizes) is handed in.
"""

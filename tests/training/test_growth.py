"""Progressive training: the plan of sizes, and runs that follow it."""

from __future__ import annotations

from liquid_ode.training.growth import Growth, growth_at


def test_sizes_take_their_shares_and_new_stages_fade_in() -> None:
    plan = [growth_at(step, 100, halvings=2, share=0.2) for step in range(100)]
    assert [growth.level for growth in plan] == [2] * 20 + [1] * 20 + [0] * 60
    assert plan[:20] == [Growth(2, 1.0)] * 20
    fades = [growth.fade for growth in plan]
    assert fades[20:30] == [(k + 1) / 10 for k in range(10)]
    assert fades[30:40] == [1.0] * 10
    assert fades[40:50] == [(k + 1) / 10 for k in range(10)]
    assert set(fades[50:]) == {1.0}


def test_without_halvings_nothing_grows() -> None:
    assert growth_at(0, 10, halvings=0, share=0.2) == Growth(0, 1.0)


def test_few_steps_still_visit_every_size() -> None:
    plan = [growth_at(step, 5, halvings=2, share=0.2) for step in range(5)]
    assert [growth.level for growth in plan] == [2, 1, 0, 0, 0]
    assert all(0 < growth.fade <= 1 for growth in plan)
